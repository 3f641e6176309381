#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""A pretend machine: `fakehost.py FOLDER on|off|reset|status`.

FOLDER/config.json names its network namespace and says how long it boots. Every change is written to FOLDER/events with a time;
the tests count the lines. The command returns at once, the machine boots in the background.
"""

import fcntl
import json
import os
import pathlib
import subprocess
import sys
import time
import uuid


def main(folder, command):
    config = json.loads((folder / "config.json").read_text())
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        power = (folder / "power").read_text() if (folder / "power").exists() else "0"
        if command == "status":
            print(power)
        elif command == "on" and power == "0":
            switch_on(folder, config, lock)
        elif command == "off" and power == "1":
            switch_off(folder, config)
        elif command == "reset" and power == "1":
            switch_off(folder, config)
            switch_on(folder, config, lock)


def note(folder, word):
    with open(folder / "events", "a") as events:
        events.write(f"{time.time():.3f} {word}\n")


def link(config, state):
    if config["namespace"]:
        subprocess.run(["ip", "-n", config["namespace"], "link", "set", "eth0", state], check=True)


def generation(folder):
    path = folder / "generation"
    return int(path.read_text()) if path.exists() else 0


def switch_on(folder, config, lock):
    mine = generation(folder) + 1
    (folder / "generation").write_text(str(mine))
    (folder / "power").write_text("1")
    note(folder, "on")
    if os.fork() == 0:
        # The lock belongs to both processes until this one lets go of it.
        lock.close()
        os.setsid()
        devnull = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(devnull, descriptor)
        time.sleep(config["boot"])
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if generation(folder) == mine:
                (folder / "boot_id").write_text(str(uuid.uuid4()))
                link(config, "up")
                note(folder, "booted")
        os._exit(0)


def switch_off(folder, config):
    (folder / "generation").write_text(str(generation(folder) + 1))
    (folder / "power").write_text("0")
    link(config, "down")
    note(folder, "off")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2])
