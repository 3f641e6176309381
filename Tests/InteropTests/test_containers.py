# SPDX-License-Identifier: MPL-2.0
"""docker-compose.yml and the image, held against the programs and the suite: no container engine is needed to see that they agree."""

import json
import os
import re
import subprocess
import urllib.parse

import pytest
import yaml

from conftest import BINARIES, TOP, load_suite

COMPOSE = (TOP / "docker-compose.yml").read_text()
CONTAINERS = yaml.safe_load(COMPOSE)["services"]
DOCKERFILE = (TOP / "deploy" / "Dockerfile").read_text()
# What runs in no container of the suite: a worker has a file of its own machine, and the others are tools of people.
ELSEWHERE = {"scriptworker", "shipit-oidc-dev", "shipit-step-check", "slipway"}
VARIABLE = re.compile(r"\$\{([A-Z_0-9]+)(?::(\?|-[^}]*))?\}")
# What somebody would write into the file .env; any other value is a word.
SECRETS = {
    "DB_CRYPTO_KEYS": json.dumps([{"id": "a", "algo": "aes-256", "key": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}]),
    "TCL_SECRET_KEY": "0123456789abcdef" * 4,
    "AUTH_DOMAIN": "issuer.example.com",
}


def program(container):
    """The name of the program in a container; None in those of other people's images."""
    return container.get("build", {}).get("args", {}).get("SERVICE")


OURS = {name: container for name, container in CONTAINERS.items() if program(container)}


def image_settings():
    """What the image sets for every program."""
    return dict(pair.split("=", 1) for line in re.findall(r"^ENV (.+)$", DOCKERFILE, re.M) for pair in line.split())


def filled(text):
    """A value with what .env has put in; each variable must be asked for or have a default."""

    def value(match):
        name, rest = match.groups()
        assert rest, f"{name} would be empty when nobody sets it"
        return rest[1:] if rest.startswith("-") else SECRETS.get(name, f"value-of-{name.lower()}-000000000000")

    return VARIABLE.sub(value, str(text))


def environment(container):
    return {name: filled(value) for name, value in container["environment"].items()}


def test_every_service_has_a_container_and_nothing_else_is_built():
    services = {path.name for path in (TOP / "services").iterdir() if path.is_dir()}
    assert {program(container) for container in OURS.values()} == services - ELSEWHERE
    # A program that serves has a container of its own name; others prepare something and end.
    for name, container in OURS.items():
        assert name == program(container) or container["command"] == ["migrate"], name


@pytest.mark.parametrize("name", OURS)
def test_a_container_is_given_what_its_program_asks_for(name):
    container = OURS[name]
    values = {"PATH": os.environ["PATH"]} | image_settings() | environment(container)
    values["SCHEMAS_DIRECTORY"] = str(TOP / "schemas")
    done = subprocess.run(
        [str(BINARIES / program(container)), "check-configuration"], env=values, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", OURS)
def test_every_variable_of_a_container_is_one_that_its_program_has(name):
    container = OURS[name]
    readme = (TOP / "services" / program(container) / "README.md").read_text()
    for other in re.findall(r"^As `([a-z-]+)`", readme, re.M):
        readme += (TOP / "services" / other / "README.md").read_text()
    unknown = [each for each in container["environment"] if f"`{each}`" not in readme]
    assert not unknown, f"services/{program(container)}/README.md does not know {unknown}"


def test_the_head_of_the_file_names_every_value_that_must_be_given():
    head = "".join(line for line in COMPOSE.splitlines(keepends=True) if line.startswith("#"))
    asked = {name for name, rest in VARIABLE.findall(COMPOSE) if rest == "?"}
    assert set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", head)) == asked


def test_addresses_lead_to_containers():
    port = image_settings()["HTTP_PORT"]
    standard = {"postgres": None, "rabbitmq": 5672}
    for name, container in OURS.items():
        for variable, text in environment(container).items():
            for each in re.findall(r"\b(?:https?|amqp|postgresql)://[^\s,\"]+", text):
                url = urllib.parse.urlsplit(each)
                assert url.hostname in CONTAINERS, f"{name}: {variable}"
                assert url.port == standard.get(url.hostname, int(port)), f"{name}: {variable}"
        for other in container["depends_on"]:
            assert other in CONTAINERS, name


def test_tables_are_made_before_they_are_used():
    """As the suite does; a container's tables come from one that ends before it starts, or from itself."""
    kits = {
        "hooks-service": {"hooks-service", "scheduler", "pulse-listener"},
        "roller-api": {"roller-api", "roller-worker"},
    }
    needed = {one: maker for maker, users in kits.items() for one in users}
    needed |= {name: name for name in load_suite().MIGRATED if name not in needed}
    for name, container in OURS.items():
        if container.get("command") == ["migrate"] or needed[program(container)] == "taskcluster-local":
            continue
        makers = [program(OURS[other]) for other in container["depends_on"] if OURS.get(other, {}).get("command") == ["migrate"]]
        assert makers == [needed[program(container)]], name


def test_clients_have_the_scopes_that_they_have_in_the_suite(running):
    wanted = {each["clientId"]: each for each in json.loads((running.suite.state / "seed.json").read_text())["clients"]}
    seeded = json.loads(filled(CONTAINERS["taskcluster-local"]["environment"]["TCL_SEED"]))["clients"]
    assert {each["clientId"] for each in seeded} == set(wanted) - {"static/slipway/scriptworker"}
    for each in seeded:
        assert set(each["scopes"]) == set(wanted[each["clientId"]]["scopes"]), each["clientId"]
    tokens = {each["clientId"]: each["accessToken"] for each in seeded}
    for name, container in OURS.items():
        values = environment(container)
        if client := values.get("TASKCLUSTER_CLIENT_ID"):
            assert values["TASKCLUSTER_ACCESS_TOKEN"] == tokens[client], name


def test_the_image_has_the_libraries_that_the_build_needs():
    packages = (TOP / "deploy" / "local" / "packages").read_text()
    linked = set(re.findall(r'pkgConfig: "([a-z0-9.-]+)"', (TOP / "Package.swift").read_text()))
    # pkg-config's name, what building needs, what running needs.
    known = {
        "libpq": ("libpq-dev", "libpq5"),
        "libcurl": ("libcurl4-openssl-dev", "libcurl4"),
        "librabbitmq": ("librabbitmq-dev", "librabbitmq4"),
        "libpcre2-8": ("libpcre2-dev", "libpcre2-8-0"),
        "yaml-0.1": ("libyaml-dev", "libyaml-0-2"),
        # Debian's package manager needs it, so it is always there.
        "zlib": ("zlib1g-dev", None),
    }
    assert linked == set(known)
    build, _, run = DOCKERFILE.rpartition("\nFROM ")
    for name, (development, library) in known.items():
        assert development in build and development in packages, name
        assert library is None or library in run.split(), name
