// SPDX-License-Identifier: MPL-2.0

import JSON

/// One key of the configuration file: its name, the values it takes and the one it has when the file is silent.
struct ConfigurationKey: Sendable {
    enum Kind: Sendable {
        /// Text; the literal `...` stands for "must be set".
        case text
        case whole
        /// A span of time in seconds; fractions are taken with a warning.
        case seconds
        case flag
        case texts
        case list
        case map
        /// Text or nothing.
        case optionalText
        /// A value, or a table of values by product; chain-of-trust verification checks it.
        case byProduct
    }

    let name: String
    let kind: Kind
    let standard: JSONValue
    /// Whether the Python worker knows the key, too.
    let isShared: Bool

    private init(_ name: String, _ kind: Kind, _ standard: JSONValue, isShared: Bool = true) {
        self.name = name
        self.kind = kind
        self.standard = standard
        self.isShared = isShared
    }

    private static func own(_ name: String, _ kind: Kind, _ standard: JSONValue) -> ConfigurationKey {
        ConfigurationKey(name, kind, standard, isShared: false)
    }

    /// The keys that a file of products may set for each of them: what belongs to a product anyway, and what is the same for all
    /// products of most organisations, such as the keys of workers.
    static let declarable: Set<String> = Set(byProduct.map(\.name)).union([
        "ed25519_public_keys", "scriptworker_provisioners", "valid_artifact_rules", "extra_task_types",
        "vcs_file_url_templates", "template_path", "pushlog_url", "project_configuration_url",
    ])
    /// The keys whose value in a configuration may be a table by product; a file that declares products names no private keys.
    static let tabled = declarable.union(["ed25519_private_key_path"])

    /// Every key, in the order in which a configuration is printed.
    static let all: [ConfigurationKey] = shared + byProduct + added

    private static let shared: [ConfigurationKey] = [
        .init("taskcluster_root_url", .text, "https://firefox-ci-tc.services.mozilla.com"),
        .init("provisioner_id", .text, "test-dummy-provisioner"),
        .init("worker_type", .text, "dummy-worker-myname"),
        .init("worker_group", .text, "test-dummy-workers"),
        .init("worker_id", .text, "dummy-worker-myname1"),
        .init("credentials", .map, [:]),
        .init("log_datefmt", .text, "%Y-%m-%dT%H:%M:%S"),
        .init("log_fmt", .text, "%(asctime)s %(levelname)8s - %(message)s"),
        .init("watch_log_file", .flag, false),
        .init("log_max_bytes", .whole, 0),
        .init("log_max_backups", .whole, 10),
        .init("verbose", .flag, true),
        .init("task_max_timeout", .seconds, 1200),
        .init("task_max_timeout_status", .whole, 1),
        .init("reclaim_interval", .seconds, 300),
        .init("invalid_reclaim_status", .whole, 7),
        .init("poll_interval", .seconds, 10),
        .init("sign_key_timeout", .seconds, 120),
        .init("cot_version", .whole, 3),
        .init("min_cot_version", .whole, 2),
        .init("reversed_statuses", .map, ["245": "intermittent-task", "241": "intermittent-task"]),
        .init("task_script", .texts, ["bash", "-c", "echo foo && sleep 19 && exit 1"]),
        .init("work_dir", .text, "..."),
        .init("artifact_dir", .text, "..."),
        .init("task_log_dir", .text, "..."),
        .init("log_dir", .text, "..."),
        .init("artifact_upload_timeout", .seconds, 1200),
        .init("max_concurrent_downloads", .whole, 5),
        .init("sign_chain_of_trust", .flag, true),
        .init("verify_chain_of_trust", .flag, false),
        .init("verify_cot_signature", .flag, false),
        .init("cot_job_type", .text, "unknown"),
        .init("cot_product", .optionalText, nil),
        .init("max_chain_length", .whole, 20),
        .init("github_oauth_token", .text, ""),
        .init("github_app_name", .text, "read"),
        .init("ed25519_private_key_path", .text, "..."),
        .init(
            "ed25519_public_keys",
            .map,
            [
                "docker-worker": [
                    "kni6ts7z/MRkvs7i6+SF/T6UWj0hAJoHEcrgHB8BBR0=", "Kz/aZIVeR6NP8gQU1U+2CCIZqvbd+4QCP6J63lflwik=",
                ],
                "generic-worker": ["Kz/aZIVeR6NP8gQU1U+2CCIZqvbd+4QCP6J63lflwik="],
                "scriptworker": [
                    "KO3FX9JnNga/XViTRBiUMHYnji9Fu3s332sU2lXjSwE=", "jFmyvf3lQiiX0qIFxal5KgIIq6VpUBTQfAtD6hEi8Ms=",
                ],
            ]
        ),
        .init(
            "project_configuration_url",
            .text,
            "https://hg.mozilla.org/ci/fxci-config/raw-file/default/projects.yml"
        ),
        .init("pushlog_url", .text, "{repo}/json-pushes?changeset={revision}&version=2&full=1"),
        .init("chain_of_trust_hash_algorithm", .text, "sha256"),
        .init("valid_hash_algorithms", .texts, ["sha256", "sha512"]),
        .init("cot_schema_path", .text, ""),
        .init(
            "valid_artifact_rules",
            .list,
            [
                [
                    "schemes": ["https"], "netlocs": ["queue.taskcluster.net"],
                    "path_regexes": [#"^/v1/task/(?P<taskId>[^/]+)(/runs/\d+)?/artifacts/(?P<filepath>.*)$"#],
                ],
                [
                    "schemes": ["https"],
                    "netlocs": [
                        "firefox-ci-tc.services.mozilla.com", "stage.taskcluster.nonprod.cloudops.mozgcp.net",
                    ],
                    "path_regexes": [
                        #"^/api/queue/v1/task/(?P<taskId>[^/]+)(/runs/\d+)?/artifacts/(?P<filepath>.*)$"#
                    ],
                ],
            ]
        ),
        .init("scriptworker_provisioners", .texts, ["scriptworker-prov-v1", "scriptworker-k8s"]),
    ]

    private static let byProduct: [ConfigurationKey] =
        [
            "cot_product_type", "valid_decision_worker_pools", "valid_docker_image_worker_pools", "trusted_vcs_rules",
            "hg_git_mirrors", "valid_tasks_for", "official_github_repos_owner", "cot_restricted_scopes",
            "cot_restricted_trees", "prebuilt_docker_image_task_types", "source_env_prefix",
        ].map { .init($0, .byProduct, nil) } + [.own("alternate_source_env_prefix", .byProduct, nil)]

    private static let added: [ConfigurationKey] = [
        .own("download_upstream_artifacts", .text, "cot"),
        .own("claim_timeout", .seconds, 60),
        .own("transfer_retry_delay", .seconds, 10),
        .own("require_dir_marker", .flag, false),
        .own("signing_key_fd", .whole, 0),
        .own("task_kill_grace", .seconds, 1),
        .own("pipe_drain_timeout", .seconds, 5),
        .own("task_log_max_bytes", .whole, 1_073_741_824),
        .own("task_log_mirror", .flag, true),
        .own("max_concurrent_uploads", .whole, 8),
        .own("artifact_max_bytes", .whole, 0),
        .own("artifact_max_count", .whole, 10000),
        .own("artifact_download_timeout", .seconds, 1200),
        .own("download_stall_timeout", .seconds, 60),
        .own("content_types", .map, [:]),
        .own("min_free_disk_bytes", .whole, 0),
        .own("shutdown_claim_grace", .seconds, 8),
        .own("shutdown_upload_deadline", .seconds, 60),
        .own(
            "strip_env",
            .texts,
            ["TASKCLUSTER_ACCESS_TOKEN", "TASKCLUSTER_CLIENT_ID", "TASKCLUSTER_CERTIFICATE"]
        ),
        .own("heartbeat_path", .text, ""),
        .own("status_listen", .text, ""),
        .own("auth_failure_exit_after", .seconds, 0),
        .own("startup_jitter", .seconds, 0),
        .own("gzip_max_bytes", .whole, 0),
        .own("log_alive_interval", .seconds, 60),
        .own("log_format", .text, "text"),
        .own("export_cot_product", .flag, false),
        .own("strict_cot", .flag, true),
        .own("cot_products_file", .text, ""),
        .own("extra_task_types", .map, [:]),
        .own("vcs_file_url_templates", .list, []),
        .own("template_path", .text, ".taskcluster.yml"),
        .own("github_api_url", .text, "https://api.github.com"),
        .own("sandbox", .flag, false),
        .own("script_user", .text, ""),
        .own("script_limits", .map, [:]),
    ]
}
