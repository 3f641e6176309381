# SPDX-License-Identifier: MPL-2.0
"""Machines to reboot: network namespaces with a real sshd, ipmi_sim, snmpd and a Redfish emulator in front of them."""

import contextlib
import http.server
import ipaddress
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

from roller_faults import LOSE_ECHOES, FaultProxy
from support import BINARIES, eventually, load_suite

HERE = pathlib.Path(__file__).resolve().parent
FAKEHOST = HERE / "fakehost.py"
SENTRY = "1.3.6.1.4.1.1718.3.2.3.1"


def missing():
    """What this machine lacks for the lab; None when it can be built."""
    tools = ["ipmitool", "ipmi_sim", "snmpset", "snmpd", "ssh", "sshd", "ssh-keygen", "ping", "ip", "openssl"]
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    absent = [tool for tool in tools if shutil.which(tool, path=path) is None]
    if absent:
        return f"these programs are not installed: {', '.join(absent)}"
    if os.geteuid() != 0:
        return "network namespaces and sshd need root"
    name = f"rlprobe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True)
    if made.returncode != 0:
        return "this machine does not allow network namespaces"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return None


def free_port():
    """A port free for TCP and UDP alike."""
    while True:
        port = load_suite().free_port()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Host:
    """One pretend machine."""

    def __init__(self, lab, name, boot=8.0, linked=True):
        self.lab, self.name = lab, name
        self.folder = lab.folder / "hosts" / name
        self.folder.mkdir(parents=True)
        self.namespace = f"rl{os.getpid()}{lab.tag}{len(lab.hosts)}" if linked else ""
        self.address = None
        if linked:
            self.address = str(self._wire())
        self.config = {"namespace": self.namespace, "boot": boot}
        self.configure()

    def configure(self, **changes):
        self.config |= changes
        new = self.folder / "config.new"
        new.write_text(json.dumps(self.config))
        new.rename(self.folder / "config.json")

    def _wire(self):
        network = self.lab.network()
        ours, theirs = network[1], network[2]
        outer = f"rl{self.namespace[2:]}o"[-15:]
        run = lambda *words: subprocess.run(words, check=True, capture_output=True)
        run("ip", "netns", "add", self.namespace)
        self.outer = outer
        run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        run("ip", "address", "add", f"{ours}/30", "dev", outer)
        run("ip", "-n", self.namespace, "address", "add", f"{theirs}/30", "dev", "eth0")
        run("ip", "-n", self.namespace, "link", "set", "lo", "up")
        run("ip", "link", "set", outer, "up")
        return theirs

    def power(self, command):
        done = subprocess.run([sys.executable, str(FAKEHOST), str(self.folder), command], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def start(self):
        """Switches on and waits until the machine is there."""
        boot = self.config["boot"]
        self.configure(boot=0)
        self.power("on")
        eventually(lambda: self.events()[-1:] == ["booted"])
        (self.folder / "events").unlink()
        self.configure(boot=boot)
        return self

    def history(self):
        path = self.folder / "events"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(float(line.split()[0]), line.split()[1]) for line in lines]

    def events(self):
        return [word for _, word in self.history()]

    def inside(self, *words):
        return ["ip", "netns", "exec", self.namespace, *words] if self.namespace else list(words)

    def remove(self):
        if self.namespace:
            subprocess.run(["ip", "netns", "delete", self.namespace], capture_output=True)
            subprocess.run(["ip", "link", "delete", self.outer], capture_output=True)


class Named:
    """A machine that is only a name and an address of another one."""

    def __init__(self, name, address):
        self.name, self.address = name, address


class Lab:
    """Everything that was started, so that it can be stopped."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="roller-lab-"))
        self.folder.chmod(0o755)
        self.tag = random.choice("abcdefghijkmnpqrstuvwxyz") + random.choice("abcdefghijkmnpqrstuvwxyz")
        self.hosts, self.processes, self.servers = [], [], []
        self.lock = threading.Lock()
        # Laboratories of processes side by side are in networks of their own.
        side = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 2
        self.base = ipaddress.ip_address(f"10.{2 * random.randrange(50, 125) + side}.{random.randrange(0, 240)}.0")
        self.networks = 0
        (self.folder / "credentials").mkdir()
        for key in ("host_key", "other_host_key", "client_key", "other_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / key)], check=True)
        self.credential("bmc", username="roller", password="s3cretbmc")
        self.credential("pdu", community="s3cretcomm")
        self.credential("key", privateKeyFile=str(self.folder / "client_key"))

    def network(self):
        self.networks += 1
        return ipaddress.ip_network(f"{self.base + 4 * self.networks}/30")

    def credential(self, name, **members):
        path = self.folder / "credentials" / f"{name}.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(members))
        return name

    def host(self, name, boot=8.0, linked=True, on=True):
        with self.lock:
            host = Host(self, name, boot, linked)
            self.hosts.append(host)
        return host.start() if on else host

    def run(self, name, arguments, **options):
        log = open(self.folder / f"{name}.log", "ab")
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **options)
        self.processes.append(process)
        return process

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for server in self.servers:
            server.shutdown()
        for host in self.hosts:
            for pid_file in host.folder.glob("*.pid"):
                try:
                    os.kill(int(pid_file.read_text()), signal.SIGKILL)
                except (ProcessLookupError, ValueError):
                    pass
            host.remove()
        # Machines that are still booting are told apart by their folder.
        for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if f"{FAKEHOST}\0{self.folder}/".encode() in entry.read_bytes():
                    os.kill(int(entry.parent.name), signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------ SSH

    def sshd(self, host, accepts=("reboot",), breaks=False, key="host_key", heeds=True):
        """A real sshd inside the machine, which lets in one key for a few words; answers the control."""
        pathlib.Path("/run/sshd").mkdir(exist_ok=True)
        folder = host.folder / "ssh"
        folder.mkdir()
        act = f"{sys.executable} {FAKEHOST} {host.folder}"
        after = "kill -9 $PPID" if breaks else "exit 0"
        words = "|".join(f"'{word}'" for word in accepts)
        (folder / "command").write_text(
            "#!/bin/bash\n"
            f'echo "$SSH_ORIGINAL_COMMAND" >>{folder}/log\n'
            'case "$SSH_ORIGINAL_COMMAND" in\n'
            f"boot-id) cat {host.folder}/boot_id;;\n"
            "uptime) cat /proc/uptime;;\n"
            f"{words}) ( sleep 0.3; {act} reset ) </dev/null >/dev/null 2>&1 & {after};;\n"
            "*) echo 'Access denied'; exit 1;;\n"
            "esac\n"
        )
        if not heeds:
            # The machine takes every command and does nothing.
            (folder / "command").write_text("#!/bin/bash\nexit 0\n")
        (folder / "command").chmod(0o755)
        public = (self.folder / "client_key.pub").read_text()
        (folder / "keys").write_text(f'command="{folder}/command",restrict {public}')
        port = 2222
        (folder / "config").write_text(
            f"Port {port}\nListenAddress {host.address}\nHostKey {self.folder / key}\nPidFile {host.folder}/sshd.pid\n"
            f"AuthorizedKeysFile {folder}/keys\nStrictModes no\nPasswordAuthentication no\nUsePAM no\n"
            "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nLogLevel ERROR\n"
        )
        subprocess.run(host.inside("/usr/sbin/sshd", "-f", str(folder / "config"), "-E", str(folder / "sshd.log")), check=True)
        eventually(lambda: socket.create_connection((host.address, port), 1).close() is None)
        public = (self.folder / "host_key.pub").read_text().split()
        return {
            "kind": "ssh",
            "name": f"ssh-{host.name}",
            "port": port,
            "credential": "key",
            "options": {"login": "root", "host_keys": [" ".join(public[:2])]},
        }

    # ------------------------------------------------------------ IPMI

    def bmc(self, host, blade=None, options=None, password="s3cretbmc"):
        """ipmi_sim in front of the machine; answers the control."""
        folder = host.folder / "ipmi"
        folder.mkdir()
        act = f"{sys.executable} {FAKEHOST} {host.folder}"
        (folder / "chassis").write_text(
            "#!/bin/bash\n"
            'op=$1; shift\n'
            'if [ "$op" = get ]; then\n'
            f'  for what in "$@"; do case $what in power) echo "power:$({act} status)";; boot) echo boot:default;; *) exit 1;; esac; done\n'
            "else\n"
            f'  while [ $# -gt 1 ]; do case $1 in power) [ "$2" = 1 ] && {act} on || {act} off;; reset) {act} reset;;\n'
            f"    shutdown) {act} off;; boot|identify) ;; *) exit 1;; esac; shift 2; done\n"
            "fi\n"
        )
        (folder / "chassis").chmod(0o755)
        port = free_port()
        lines = ['name "bmc"', "set_working_mc 0x20", "  startlan 1", f"    addr 127.0.0.1 {port}", "    priv_limit admin"]
        for level in ("callback", "user", "operator", "admin"):
            lines.append(f"    allowed_auths_{level} none md2 md5 straight")
        lines += ["    guid a123456789abcdefa123456789abcdef", "  endlan"]
        if blade:
            lines += [f"set_working_mc {blade}", f'  chassis_control "{folder}/chassis"', "set_working_mc 0x20"]
        else:
            lines.append(f'  chassis_control "{folder}/chassis"')
        # The simulator's passwords have no blanks and 16 bytes at most.
        lines += ['  user 1 true "" "" user 10', f'  user 2 true "roller" "{password}" operator 10', ""]
        (folder / "lan.conf").write_text("\n".join(lines))
        commands = ["mc_setbmc 0x20", "mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr"]
        commands += ["sel_enable 0x20 1000 0x0a", "mc_enable 0x20"]
        if blade:
            commands += [f"mc_add {blade} 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr", f"mc_enable {blade}"]
        (folder / "cmds.emu").write_text("\n".join(commands) + "\n")
        process = self.run(
            f"ipmi-{host.name}",
            ["ipmi_sim", "-c", str(folder / "lan.conf"), "-f", str(folder / "cmds.emu"), "-s", str(folder / "state"), "-n"],
        )
        control = {
            "kind": "ipmi",
            "name": f"bmc-{host.name}",
            "address": "127.0.0.1",
            "port": port,
            "credential": "bmc",
            # The machines of a busy laboratory answer slowly.
            "options": options or {"cipher_suites": [3], "interval": 10},
        }
        if blade:
            control["locator"] = {"bridge": ["-b 0", f"-t {blade}"]}
        words = ["ipmitool", "-I", "lanplus", "-C", "3", "-N", "1", "-R", "2", "-L", "OPERATOR", "-H", "127.0.0.1", "-p", str(port)]
        words += ["-U", "roller", "-E", "mc", "info"]
        environment = dict(os.environ, IPMITOOL_PASSWORD=password)
        eventually(lambda: subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0)
        return control, process

    # ------------------------------------------------------------ outlets

    def pdu(self, name, hosts, community="s3cretcomm", lines=()):
        """snmpd whose outlets aa1, aa2, … switch the machines; answers one control for each machine."""
        folder = self.folder / f"pdu-{name}"
        folder.mkdir()
        cases = "\n".join(f"{index}) folder={host.folder};;" for index, host in enumerate(hosts, 1))
        (folder / "outlet").write_text(
            "#!/bin/bash\n"
            f"op=$1 oid=$2\ncase $oid in .{SENTRY}.11.1.1.*) table=11;; .{SENTRY}.5.1.1.*) table=5;; *) exit 0;; esac\n"
            f"case ${{oid##*.}} in\n{cases}\n*) exit 0;; esac\n"
            f'act="{sys.executable} {FAKEHOST} $folder"\n'
            'if [ "$op" = -g ]; then echo "$oid"; echo integer; if [ $table = 11 ]; then echo 0; else $act status; fi\n'
            'elif [ "$op" = -s ]; then\n'
            "  [ $table = 5 ] && { echo not-writable; exit 0; }\n"
            "  echo \"$(date +%s.%3N) ${oid##*.} $4\" >>" + str(folder) + "/sets\n"
            "  case $4 in 1) $act on;; 2) $act off;; 3) $act reset;; 0) ;; *) echo wrong-value;; esac\nfi\n"
        )
        (folder / "outlet").chmod(0o755)
        port = free_port()
        quoted = community.replace("\\", "\\\\").replace('"', '\\"')
        (folder / "snmpd.conf").write_text(
            f'agentaddress udp:127.0.0.1:{port}\nrwcommunity "{quoted}" 127.0.0.1\n'
            'createUser roller3 SHA "authpass123" AES "privpass123"\nrwuser roller3 priv\n'
            f"pass .{SENTRY} /bin/bash {folder}/outlet\n"
        )
        process = self.run(
            f"pdu-{name}",
            ["/usr/sbin/snmpd", "-f", "-Lo", "-C", "-c", str(folder / "snmpd.conf")],
            env=dict(os.environ, MIBS="", SNMP_PERSISTENT_DIR=str(folder / "var")),
        )
        words = ["snmpget", "-v", "2c", "-c", community, "-t", "1", "-r", "1", f"127.0.0.1:{port}", f"{SENTRY}.5.1.1.1"]
        environment = dict(os.environ, MIBS="")
        eventually(lambda: subprocess.run(words, env=environment, capture_output=True).returncode == 0)
        controls = [
            {
                "kind": "snmp_pdu",
                "id": f"pdu-{name}",
                "name": f"pdu-{name}",
                "type": "sentry3",
                "address": "127.0.0.1",
                "port": port,
                "credential": "pdu",
                "locator": {"outlet": f"aa{index}"},
                "options": {"timeout": 20},
            }
            for index, _ in enumerate(hosts, 1)
        ]
        return controls, process

    def sets(self, name):
        """What snmpd was told, as (time, outlet, value)."""
        path = self.folder / f"pdu-{name}" / "sets"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(float(at), outlet, value) for at, outlet, value in (line.split() for line in lines)]

    # ------------------------------------------------------------ Redfish

    def redfish(self, host):
        """The Redfish emulator of OpenStack in front of the machine; answers the control."""
        folder = host.folder / "redfish"
        (folder / "state").mkdir(parents=True)
        names = "subjectAltName=IP:127.0.0.1"
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bmc", "-addext", names]
        words += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
        subprocess.run(words, check=True, capture_output=True)

        import bcrypt

        user = b"roller:" + bcrypt.hashpw(b"s3cretbmc", bcrypt.gensalt(4, prefix=b"2a"))
        (folder / "users").write_bytes(user + b"\n")
        system = "11111111-1111-1111-1111-111111111111"

        class Notified(http.server.BaseHTTPRequestHandler):
            def do_PUT(self):
                state = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                pending = state.get("pending_power")
                if not pending:
                    host.power("on" if state["power_state"] == "On" else "off")
                elif "Restart" in pending["power_state"]:
                    host.power("off")
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        notifier = self.serve(Notified)
        port = free_port()
        settings = {
            "SUSHY_EMULATOR_LISTEN_IP": "127.0.0.1",
            "SUSHY_EMULATOR_LISTEN_PORT": port,
            "SUSHY_EMULATOR_SSL_CERT": str(folder / "cert.pem"),
            "SUSHY_EMULATOR_SSL_KEY": str(folder / "key.pem"),
            "SUSHY_EMULATOR_AUTH_FILE": str(folder / "users"),
            "SUSHY_EMULATOR_FAKE_DRIVER": True,
            "SUSHY_EMULATOR_STATE_DIR": str(folder / "state"),
            "EXTERNAL_NOTIFICATION_URL": f"http://127.0.0.1:{notifier}",
            "SUSHY_EMULATOR_FAKE_SYSTEMS": [
                {"uuid": system, "name": host.name, "power_state": "On", "external_notifier": True, "nics": [{"mac": "00:5c:52:31:3a:9c", "ip": "127.0.0.1"}]}
            ],
        }
        (folder / "conf.py").write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
        emulator = pathlib.Path(sys.executable).parent / "sushy-emulator"
        self.run(f"redfish-{host.name}", [str(emulator), "--config", str(folder / "conf.py")])
        context = ssl.create_default_context(cafile=str(folder / "cert.pem"))
        eventually(lambda: context.wrap_socket(socket.create_connection(("127.0.0.1", port), 1), server_hostname="127.0.0.1").close() is None)
        return {
            "kind": "redfish",
            "name": f"redfish-{host.name}",
            "address": "127.0.0.1",
            "port": port,
            "credential": "bmc",
            "options": {"ca_file": str(folder / "cert.pem")},
        }

    # ------------------------------------------------------------ small servers

    def serve(self, handler, tls=None):
        """An HTTP server of this process, behind TLS if it gets a context for that; answers its port."""
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        self.servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_address[1]

    def lose_echoes(self, host, every):
        """Makes the machine leave every n-th ping unanswered, by count and not by time; what was lost stands in `lost`."""
        (host.folder / "lost").touch()
        self.run(
            f"echoes-{host.name}",
            host.inside(sys.executable, "-c", LOSE_ECHOES, str(every), str(host.folder / "lost")),
        )
        eventually(lambda: (host.folder / "lost.ready").exists())

    def faults(self, port):
        """A proxy in front of a UDP port that loses what it is told to lose."""
        return FaultProxy(port)

    # ------------------------------------------------------------ acting

    def act(self, action, target, params=None, flags=(), seconds=240, settings=None):
        """Runs one action of the real worker; answers its exit status, its JSON and all it printed."""
        environment = {
            "PATH": os.environ["PATH"] + ":/usr/sbin",
            "CREDENTIALS_DIR": str(self.folder / "credentials"),
            "DOWN_TIMEOUT": "12s",
            "UP_TIMEOUT": "60s",
        } | (settings or {})
        words = [str(BINARIES / "roller-worker"), "act", action, "--target", "-", "--verbose", *flags]
        for name, value in (params or {}).items():
            words += ["--param", f"{name}={value}"]
        done = subprocess.run(words, env=environment, input=json.dumps(target), capture_output=True, text=True, timeout=seconds)
        try:
            answer = json.loads(done.stdout)
        except json.JSONDecodeError:
            answer = {"state": "broken", "summary": done.stdout + done.stderr}
        return done.returncode, answer, done.stdout + done.stderr


def machine(host, *controls, **properties):
    """What an action is told about a machine."""
    target = {"name": host.name, "controls": list(controls), "properties": properties}
    if host.address:
        target["ip"] = host.address
    return target


def wait_for_exit(process, seconds=60):
    limit = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < limit:
        time.sleep(0.05)
    return process.returncode
