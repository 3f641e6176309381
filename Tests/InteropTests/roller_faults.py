# SPDX-License-Identifier: MPL-2.0
"""What goes wrong on the way to machines and their controllers: echoes, requests and answers that get lost."""

import socket
import threading

# Runs inside the machine: it sees every ping, and switches the kernel's answers off for exactly the next one now and then.
LOSE_ECHOES = """
import pathlib, socket, sys
every, lost = int(sys.argv[1]), pathlib.Path(sys.argv[2])
switch = pathlib.Path("/proc/sys/net/ipv4/icmp_echo_ignore_all")
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
pathlib.Path(str(lost) + ".ready").touch()
count = 0
while True:
    packet = raw.recv(65536)
    if packet[(packet[0] & 15) * 4] != 8:
        continue
    count += 1
    if count % every == every - 1:
        switch.write_text("1")
    elif count % every == 0:
        switch.write_text("0")
        with lost.open("a") as log:
            log.write(f"{count}\\n")
"""


class FaultProxy:
    """Forwards datagrams both ways, and drops or delays some."""

    def __init__(self, port):
        self.target = ("127.0.0.1", port)
        self.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.server.bind(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.requests = self.replies = 0
        self.lose_reply = lambda number, packet: False
        self.lose_request = lambda number, packet: False
        self.delay = 0.0
        self.clients = {}
        self.closed = False
        threading.Thread(target=self._requests, daemon=True).start()

    def _requests(self):
        while not self.closed:
            packet, client = self.server.recvfrom(65536)
            self.requests += 1
            if self.lose_request(self.requests, packet):
                continue
            if client not in self.clients:
                upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                upstream.connect(self.target)
                self.clients[client] = upstream
                threading.Thread(target=self._replies, args=(client, upstream), daemon=True).start()
            self.clients[client].send(packet)

    def _replies(self, client, upstream):
        while not self.closed:
            packet = upstream.recv(65536)
            self.replies += 1
            if self.lose_reply(self.replies, packet):
                continue
            if self.delay:
                threading.Timer(self.delay, self.server.sendto, (packet, client)).start()
            else:
                self.server.sendto(packet, client)
