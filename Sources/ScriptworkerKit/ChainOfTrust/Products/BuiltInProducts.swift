// SPDX-License-Identifier: MPL-2.0

/// The products that a configuration may name without bringing their tables.
///
/// They are data in the form of a products file (`cot_products_file`), and replaceable as a whole by one. The dots of `.git` are
/// escaped, unlike in the Python worker's tables, so that they match nothing but dots.
enum BuiltInProducts {
    static let yaml = #"""
        adhoc:
          cot_product_type: github
          source_env_prefix: ADHOC
          official_github_repos_owner: mozilla-releng
          valid_tasks_for: [action, github-pull-request, github-push]
          prebuilt_docker_image_task_types: any
          valid_decision_worker_pools: [adhoc-1/decision, adhoc-3/decision, adhoc-1/decision-gcp, adhoc-3/decision-gcp]
          valid_docker_image_worker_pools: [adhoc-1/images, adhoc-3/images, adhoc-1/images-gcp, adhoc-3/images-gcp]
          hg_git_mirrors: {}
          trusted_vcs_rules:
            - schemes: [https, ssh]
              netlocs: [github.com]
              path_regexes:
                - '^(?P<path>/mozilla-releng/(?:adhoc-signing|adhoc-manifest))(/|\.git|$)'
          cot_restricted_scopes:
            project:adhoc:signing:cert:release-signing: adhoc-signing-repos
          cot_restricted_trees:
            adhoc-signing-repos: [/mozilla-releng/adhoc-signing, /mozilla-releng/adhoc-manifest]
        app-services:
          cot_product_type: github
          source_env_prefix: APPSERVICES
          official_github_repos_owner: mozilla
          valid_tasks_for: [action, cron, github-pull-request, github-push, github-release]
          prebuilt_docker_image_task_types: any
          valid_decision_worker_pools:
            - app-services-1/decision
            - app-services-3/decision
            - app-services-1/decision-gcp
            - app-services-3/decision-gcp
          valid_docker_image_worker_pools:
            - app-services-1/images
            - app-services-3/images
            - app-services-1/images-gcp
            - app-services-3/images-gcp
          hg_git_mirrors: {}
          trusted_vcs_rules:
            - schemes: [https, ssh]
              netlocs: [github.com]
              path_regexes:
                - '^(?P<path>/mozilla/application-services)(/|\.git|$)'
          cot_restricted_scopes:
            project:mozilla:app-services:releng:beetmover:bucket:maven-production: app-services-repo
            project:mozilla:app-services:releng:beetmover:bucket:release: app-services-repo
            project:mozilla:app-services:releng:signing:cert:release-signing: app-services-repo
          cot_restricted_trees:
            app-services-repo: [/mozilla/application-services]
        enterprise:
          cot_product_type: github
          source_env_prefix: GECKO
          alternate_source_env_prefix: COMM
          official_github_repos_owner: [mozilla, thunderbird]
          valid_tasks_for: [action, cron, github-pull-request, github-push, github-release, pr-action]
          prebuilt_docker_image_task_types: [decision, action, docker-image]
          valid_decision_worker_pools: [enterprise-1/decision, enterprise-2/decision, enterprise-3/decision]
          valid_docker_image_worker_pools: [enterprise-1/images, enterprise-2/images, enterprise-3/images]
          hg_git_mirrors: {}
          trusted_vcs_rules:
            - schemes: [https, ssh]
              netlocs: [github.com]
              path_regexes:
                - '^(?P<path>/mozilla/enterprise-firefox)(/|\.git|$)'
                - '^(?P<path>/thunderbird/thunderbird-desktop)(/|\.git|$)'
          cot_restricted_scopes:
            project:enterprise:releng:signing:cert:nightly-signing: enterprise-firefox-repo
            project:enterprise:releng:signing:cert:release-signing: enterprise-firefox-repo
            project:enterprise:releng:signing:cert:production-signing: enterprise-firefox-repo
            project:enterprise:releng:signing:cert:fennec-production-signing: enterprise-firefox-repo
          cot_restricted_trees:
            enterprise-firefox-repo: [/mozilla/enterprise-firefox, /thunderbird/thunderbird-desktop]
        firefox:
          cot_product_type: [hg, github]
          source_env_prefix: GECKO
          official_github_repos_owner: mozilla-firefox
          valid_tasks_for:
            - action
            - cron
            - github-pull-request
            - github-pull-request-untrusted
            - github-push
            - hg-push
            - pr-action
          prebuilt_docker_image_task_types: [decision, action, docker-image]
          valid_decision_worker_pools:
            - gecko-1/decision
            - gecko-2/decision
            - gecko-3/decision
            - gecko-1/decision-gcp
            - gecko-2/decision-gcp
            - gecko-3/decision-gcp
          valid_docker_image_worker_pools:
            - gecko-1/images
            - gecko-2/images
            - gecko-3/images
            - gecko-1/images-gcp
            - gecko-2/images-gcp
            - gecko-3/images-gcp
          hg_git_mirrors:
            /mozilla-central: /mozilla-firefox/firefox
            /integration/autoland: /mozilla-firefox/firefox
            /releases/mozilla-beta: /mozilla-firefox/firefox
            /releases/mozilla-release: /mozilla-firefox/firefox
            /releases/mozilla-esr115: /mozilla-firefox/firefox
            /releases/mozilla-esr140: /mozilla-firefox/firefox
            /releases/mozilla-esr153: /mozilla-firefox/firefox
          trusted_vcs_rules:
            - schemes: [https, ssh]
              netlocs: [hg.mozilla.org]
              path_regexes:
                - '^(?P<path>/mozilla-(central|unified))(/|$)'
                - '^(?P<path>/integration/autoland)(/|$)'
                - '^(?P<path>/releases/mozilla-(beta|release|esr\d+))(/|$)'
                - '^(?P<path>/projects/(pine|maple|larch|cypress))(/|$)'
            - schemes: [https, ssh]
              netlocs: [github.com]
              path_regexes:
                - '^(?P<path>/mozilla-firefox/firefox)(/|\.git|$)'
          cot_restricted_scopes:
            project:releng:addons.mozilla.org:server:production: all-release-branches
            project:releng:signing:cert:release-signing: all-release-branches
            project:releng:balrog:server:nightly: all-nightly-branches
            project:releng:beetmover:bucket:nightly: all-nightly-branches
            project:releng:signing:cert:nightly-signing: all-nightly-branches
            project:releng:balrog:server:beta: beta
            project:releng:flathub:firefox:beta: beta
            project:releng:flathub:firefox:beta:org.mozilla.firefox: beta
            project:releng:microsoftstore:beta: beta
            project:releng:lando:repo:beta: beta
            project:releng:balrog:server:release: release
            project:releng:flathub:firefox:stable: release
            project:releng:flathub:firefox:stable:org.mozilla.firefox: release
            project:releng:microsoftstore:release: release
            project:releng:lando:repo:release: release
            project:releng:balrog:server:esr: esr
            project:releng:beetmover:bucket:release: all-release-branches-and-autoland
            project:releng:beetmover:bucket:maven-production: all-production-branches
            project:releng:bouncer:server:production: all-production-branches
            project:releng:signing:cert:production-signing: all-production-branches
            project:releng:googleplay:product:focus-android: all-production-branches
            project:releng:googleplay:product:fenix: all-production-branches
            project:releng:ship-it:production: all-production-branches
            project:releng:beetmover:bucket:maven-nightly-production: nightly
            project:releng:lando:repo:nightly: nightly
            project:releng:signing:cert:fennec-production-signing: beta-or-release
            project:releng:treescript:action:push: all-production-branches-and-autoland
            project:releng:lando:repo:autoland: autoland
            project:releng:lando:repo:esr115: esr115
            project:releng:lando:repo:esr140: esr140
            project:releng:lando:repo:esr153: esr153
          cot_restricted_trees:
            all-release-branches:
              - /releases/mozilla-beta
              - /releases/mozilla-release
              - /releases/mozilla-esr115
              - /releases/mozilla-esr140
              - /releases/mozilla-esr153
              - /projects/birch
              - /projects/maple
            all-release-branches-and-autoland:
              - /releases/mozilla-beta
              - /releases/mozilla-release
              - /releases/mozilla-esr115
              - /releases/mozilla-esr140
              - /releases/mozilla-esr153
              - /projects/birch
              - /projects/maple
              - /integration/autoland
            release: [/releases/mozilla-release]
            beta: [/releases/mozilla-beta]
            beta-or-release: [/releases/mozilla-beta, /releases/mozilla-release]
            esr115: [/releases/mozilla-esr115]
            esr140: [/releases/mozilla-esr140]
            esr153: [/releases/mozilla-esr153]
            esr: [/releases/mozilla-esr115, /releases/mozilla-esr140, /releases/mozilla-esr153]
            nightly: [/mozilla-central]
            autoland: [/integration/autoland]
            all-nightly-branches:
              - /mozilla-central
              - /releases/mozilla-unified
              - /releases/mozilla-beta
              - /releases/mozilla-release
              - /releases/mozilla-esr115
              - /releases/mozilla-esr140
              - /releases/mozilla-esr153
              - /projects/pine
              - /projects/larch
              - /projects/maple
              - /projects/cypress
            all-production-branches:
              - /mozilla-central
              - /releases/mozilla-beta
              - /releases/mozilla-release
              - /releases/mozilla-esr115
              - /releases/mozilla-esr140
              - /releases/mozilla-esr153
            all-production-branches-and-autoland:
              - /mozilla-central
              - /releases/mozilla-beta
              - /releases/mozilla-release
              - /releases/mozilla-esr115
              - /releases/mozilla-esr140
              - /releases/mozilla-esr153
              - /integration/autoland
        glean:
          cot_product_type: github
          source_env_prefix: GLEAN
          official_github_repos_owner: mozilla
          valid_tasks_for: [action, cron, github-pull-request, github-push, github-release]
          prebuilt_docker_image_task_types: any
          valid_decision_worker_pools: [glean-1/decision, glean-3/decision, glean-1/decision-gcp, glean-3/decision-gcp]
          valid_docker_image_worker_pools: [glean-1/images, glean-3/images, glean-1/images-gcp, glean-3/images-gcp]
          hg_git_mirrors: {}
          trusted_vcs_rules:
            - schemes: [https, ssh]
              netlocs: [github.com]
              path_regexes:
                - '^(?P<path>/mozilla/glean)(/|\.git|$)'
          cot_restricted_scopes:
            project:mozilla:glean:releng:beetmover:bucket:maven-production: glean-repo
          cot_restricted_trees:
            glean-repo: [/mozilla/glean]
        mobile:
          cot_product_type: github
          source_env_prefix: MOBILE
          official_github_repos_owner: mozilla-mobile
          valid_tasks_for: [action, cron, github-pull-request, github-pull-request-untrusted, github-push, github-release]
          prebuilt_docker_image_task_types: any
          valid_decision_worker_pools: [mobile-1/decision, mobile-3/decision, mobile-1/decision-gcp, mobile-3/decision-gcp]
          valid_docker_image_worker_pools: [mobile-1/images, mobile-3/images, mobile-1/images-gcp, mobile-3/images-gcp]
          hg_git_mirrors: {}
          trusted_vcs_rules:
            - schemes: [https, ssh]
              netlocs: [github.com]
              path_regexes:
                - '^(?P<path>/mozilla-mobile/(?:reference-browser))(/|\.git|$)'
          cot_restricted_scopes:
            project:mobile:reference-browser:releng:googleplay:product:reference-browser: reference-browser-repo
            project:mobile:reference-browser:releng:signing:cert:release-signing: reference-browser-repo
            project:mobile:releng:treescript:action:push: firefox-ios-repo
          cot_restricted_trees:
            reference-browser-repo: [/mozilla-mobile/reference-browser]
            firefox-ios-repo: [/mozilla-mobile/firefox-ios]
        mozillavpn:
          cot_product_type: github
          source_env_prefix: MOZILLAVPN
          official_github_repos_owner: mozilla-mobile
          valid_tasks_for: [action, cron, github-pull-request, github-push, github-release]
          prebuilt_docker_image_task_types: any
          valid_decision_worker_pools:
            - mozillavpn-1/decision
            - mozillavpn-3/decision
            - mozillavpn-1/decision-gcp
            - mozillavpn-3/decision-gcp
          valid_docker_image_worker_pools:
            - mozillavpn-1/images
            - mozillavpn-3/images
            - mozillavpn-1/images-gcp
            - mozillavpn-3/images-gcp
          hg_git_mirrors: {}
          trusted_vcs_rules:
            - schemes: [https, ssh]
              netlocs: [github.com]
              path_regexes:
                - '^(?P<path>/mozilla-mobile/(?:mozilla-vpn-client))(/|\.git|$)'
          cot_restricted_scopes:
            project:mozillavpn:releng:signing:cert:nightly-signing: mozillavpn-repo
            project:mozillavpn:releng:signing:cert:release-signing: mozillavpn-repo
            project:mozillavpn:releng:googleplay:product:mozillavpn: mozillavpn-repo
            project:mozillavpn:releng:beetmover:bucket:release: mozillavpn-repo
          cot_restricted_trees:
            mozillavpn-repo: [/mozilla-mobile/mozilla-vpn-client]
        scriptworker:
          cot_product_type: github
          source_env_prefix: SCRIPTWORKER
          official_github_repos_owner: mozilla-releng
          valid_tasks_for: [action, cron, github-pull-request, github-push, github-release]
          prebuilt_docker_image_task_types: [decision, action, docker-image]
          valid_decision_worker_pools:
            - scriptworker-1/decision
            - scriptworker-3/decision
            - scriptworker-1/decision-gcp
            - scriptworker-3/decision-gcp
          valid_docker_image_worker_pools:
            - scriptworker-1/images
            - scriptworker-3/images
            - scriptworker-1/images-gcp
            - scriptworker-3/images-gcp
          hg_git_mirrors: {}
          trusted_vcs_rules:
            - schemes: [https, ssh]
              netlocs: [github.com]
              path_regexes:
                - '^(?P<path>/mozilla-releng/scriptworker(?:|-scripts))(/|\.git|$)'
          cot_restricted_scopes:
            project:scriptworker:dockerhub:production: scriptworker-scripts-repo
            project:scriptworker:pypi:production: all-production-repos
          cot_restricted_trees:
            scriptworker-scripts-repo: [/mozilla-releng/scriptworker-scripts]
            all-production-repos: [/mozilla-releng/scriptworker, /mozilla-releng/scriptworker-scripts]
        thunderbird:
          cot_product_type: hg
          source_env_prefix: COMM
          official_github_repos_owner: ''
          valid_tasks_for: [action, cron, hg-push]
          prebuilt_docker_image_task_types: [decision, action, docker-image]
          valid_decision_worker_pools:
            - comm-1/decision
            - comm-2/decision
            - comm-3/decision
            - comm-1/decision-gcp
            - comm-2/decision-gcp
            - comm-3/decision-gcp
          valid_docker_image_worker_pools:
            - comm-1/images
            - comm-2/images
            - comm-3/images
            - comm-1/images-gcp
            - comm-2/images-gcp
            - comm-3/images-gcp
          hg_git_mirrors: {}
          trusted_vcs_rules:
            - schemes: [https, ssh]
              netlocs: [hg.mozilla.org]
              path_regexes:
                - '^(?P<path>/comm-central)(/|$)'
                - '^(?P<path>/integration/comm-autoland)(/|$)'
                - '^(?P<path>/releases/comm-(beta|release|esr\d+))(/|$)'
          cot_restricted_scopes:
            project:comm:thunderbird:releng:balrog:server:nightly: all-nightly-branches
            project:comm:thunderbird:releng:beetmover:bucket:nightly: all-nightly-branches
            project:comm:thunderbird:releng:bouncer:server:production: all-nightly-branches
            project:comm:thunderbird:releng:signing:cert:nightly-signing: all-nightly-branches
            project:comm:thunderbird:releng:balrog:server:beta: beta
            project:comm:thunderbird:releng:flathub:beta: beta
            project:comm:thunderbird:releng:flathub:beta:org.mozilla.Thunderbird: beta
            project:comm:thunderbird:releng:flathub:beta:org.mozilla.thunderbird: beta
            project:comm:thunderbird:releng:microsoftstore:beta: beta
            project:comm:thunderbird:releng:balrog:server:release: release-or-esr
            project:comm:thunderbird:releng:flathub:stable: release-or-esr
            project:comm:thunderbird:releng:flathub:stable:org.mozilla.Thunderbird: release-or-esr
            project:comm:thunderbird:releng:balrog:server:esr: esr
            project:comm:thunderbird:releng:flathub:stable:org.mozilla.thunderbird_esr: esr
            project:comm:thunderbird:releng:microsoftstore:esr: esr
            project:comm:thunderbird:releng:beetmover:bucket:release: all-release-branches
            project:comm:thunderbird:releng:signing:cert:release-signing: all-release-branches
            project:comm:thunderbird:releng:flathub:stable:org.mozilla.thunderbird: release
            project:comm:thunderbird:releng:microsoftstore:release: release
          cot_restricted_trees:
            all-release-branches:
              - /releases/comm-beta
              - /releases/comm-release
              - /releases/comm-esr115
              - /releases/comm-esr140
              - /releases/comm-esr153
            beta: [/releases/comm-beta]
            release: [/releases/comm-release]
            release-or-esr: [/releases/comm-release, /releases/comm-esr115, /releases/comm-esr140, /releases/comm-esr153]
            esr: [/releases/comm-esr115, /releases/comm-esr140, /releases/comm-esr153]
            all-nightly-branches:
              - /comm-central
              - /releases/comm-beta
              - /releases/comm-release
              - /releases/comm-esr115
              - /releases/comm-esr140
              - /releases/comm-esr153
            nightly: [/comm-central]
            autoland: [/integration/comm-autoland]
        translations:
          cot_product_type: github
          source_env_prefix: TRANSLATIONS
          official_github_repos_owner: mozilla
          valid_tasks_for: [action, cron, github-pull-request, github-push, pr-action]
          prebuilt_docker_image_task_types: any
          valid_decision_worker_pools: [translations-1/decision, translations-1/decision-gcp]
          valid_docker_image_worker_pools: [translations-1/images, translations-1/images-gcp]
          hg_git_mirrors: {}
          trusted_vcs_rules:
            - schemes: [https, ssh]
              netlocs: [github.com]
              path_regexes:
                - '^(?P<path>/mozilla/translations)(/|\.git|$)'
          cot_restricted_scopes:
            project:translations:releng:beetmover:bucket:release: translations-repo
          cot_restricted_trees:
            translations-repo: [/mozilla/translations]
        xpi:
          cot_product_type: github
          source_env_prefix: XPI
          official_github_repos_owner: mozilla-extensions
          valid_tasks_for: [action, cron, github-pull-request, github-push, github-release]
          prebuilt_docker_image_task_types: any
          valid_decision_worker_pools: [xpi-1/decision, xpi-3/decision, xpi-1/decision-gcp, xpi-3/decision-gcp]
          valid_docker_image_worker_pools: [xpi-1/images, xpi-3/images, xpi-1/images-gcp, xpi-3/images-gcp]
          hg_git_mirrors: {}
          trusted_vcs_rules:
            - schemes: [https, ssh]
              netlocs: [github.com]
              path_regexes:
                - '^(?P<path>/mozilla-extensions/xpi-manifest)(/|\.git|$)'
          cot_restricted_scopes:
            project:xpi:signing:cert:release-signing: xpi-manifest-repo
            'project:xpi:releng:github:project:mozilla-extensions/*': xpi-manifest-repo
            project:xpi:ship-it:production: xpi-manifest-repo
            project:xpi:beetmover:bucket:release: xpi-manifest-repo
            project:xpi:balrog:server:release: xpi-manifest-repo
          cot_restricted_trees:
            xpi-manifest-repo: [/mozilla-extensions/xpi-manifest]
        """#
}
