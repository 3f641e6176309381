// SPDX-License-Identifier: MPL-2.0

import JSON
import RollerKit
import Testing

@testable import RollerActionsKit

struct ReplyTests {
    private func output(_ text: String, code: Int = 1, seconds: Double = 0.2, timedOut: Bool = false) -> ToolOutput {
        ToolOutput(code: code, text: text, timedOut: timedOut, duration: .milliseconds(Int64(seconds * 1000)))
    }

    @Test func `the power state is found among noise and never guessed`() {
        let noise = "Get HPM.x Capabilities request failed, compcode = d4\nChassis Power is on\n"
        #expect(IPMIReply.power(noise) == .on)
        #expect(IPMIReply.power("Chassis Power is off \n") == .off)
        #expect(IPMIReply.power("Chassis Power is unsure") == .unknown)
        #expect(IPMIReply.power("") == .unknown)
    }

    @Test func `32: a session that fails at once is a matter of credentials, one that fails late of silence`() {
        let text = "Error: Unable to establish IPMI v2 / RMCP+ session\n"
        #expect(IPMIReply.failure(output(text), interval: 2).kind == .credentialsOrSession)
        #expect(IPMIReply.failure(output(text, seconds: 6.1), interval: 2).kind == .timeout)
        #expect(IPMIReply.failure(output("Error: Node busy"), interval: 2).isRetriable)
        #expect(IPMIReply.failure(output("Insufficient privilege level"), interval: 2).kind == .config)
    }

    @Test func `34: a reset is transmitted exactly once, and everything else may be repeated`() throws {
        for command in IPMICommand.allCases {
            let isPowerCut = command == .reset || command == .cycle
            #expect(command.transmissions == (isPowerCut ? 1 : 3))
            let control = Control(controllerID: "c", name: "c", kind: .ipmi, address: "192.0.2.1")
            let words = try IPMIClient.arguments(command, control, suite: 17, user: "u")
            let index = try #require(words.firstIndex(of: "-R"))
            #expect(words[index + 1] == (isPowerCut ? "1" : "3"))
            #expect(words.contains("-E") && !words.contains("-P"))
        }
    }

    @Test func `31: bridge tokens of old tables are split, and nothing else passes as one`() throws {
        var control = Control(controllerID: "c", name: "c", kind: .ipmi, address: "192.0.2.1")
        control.locator["bridge"] = ["-B 0", "-b 7", "-T", "0x82", "-t 0x72"]
        let words = try IPMIClient.arguments(.status, control, suite: 3, user: "u")
        #expect(words.suffix(11) == ["-B", "0", "-b", "7", "-T", "0x82", "-t", "0x72", "chassis", "power", "status"])
        control.locator["bridge"] = ["-H evil"]
        #expect(throws: ActionError.self) { try IPMIClient.arguments(.status, control, suite: 3, user: "u") }
    }

    @Test(arguments: [
        ("", SSHClient.Ending.broken),
        ("Connection to 192.0.2.1 closed by remote host.", .broken),
        ("ssh: connect to host 192.0.2.1 port 22: Connection refused", .unreachable),
        ("Connection timed out during banner exchange", .unreachable),
        ("root@192.0.2.1: Permission denied (publickey).", .denied),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", .hostKeyMismatch),
        ("No ED25519 host key is known for box and you have requested strict checking.", .hostKeyMismatch),
    ])
    func `27 and 29: the one exit code of SSH is told apart by what is printed`(text: String, ending: SSHClient.Ending)
    {
        #expect(SSHClient.ending(output(text, code: 255)) == ending)
        #expect(SSHClient.ending(output(text, code: 1)) == .exited(1))
    }

    @Test func `ping output is read whole`() throws {
        let text = """
            PING 127.0.0.1 (127.0.0.1) 56(84) bytes of data.

            --- 127.0.0.1 ping statistics ---
            4 packets transmitted, 3 received, 25% packet loss, time 3054ms
            rtt min/avg/max/mdev = 0.021/0.034/0.041/0.007 ms
            """
        let ping = try #require(PingOutput(text))
        #expect(ping.transmitted == 4 && ping.received == 3 && ping.lost == 1)
        let slow =
            "5 packets transmitted, 4 received, 20% packet loss\nrtt min/avg/max/mdev = 900.1/1100.2/1300.3/9.9 ms"
        #expect(PingOutput(slow)?.lost == 0)
        #expect(ping.json["loss"]?.double == 25)
        #expect(ping.json["rtt"]?["max"]?.double == 0.041)
        #expect(PingOutput("ping: x: Name or service not known") == nil)
        #expect(PingOutput.failure(code: 2, text: "ping: socket: Operation not permitted")?.kind == .tooling)
    }

    @Test func `uptime is understood in its usual forms`() {
        #expect(UptimeAction.seconds(" 10:02:11 up 3 days,  4:05,  1 user") == 3 * 86400 + 4 * 3600 + 5 * 60)
        #expect(UptimeAction.seconds(" 10:02:11 up 12 min,  1 user") == 720)
        #expect(UptimeAction.seconds("351.77 1320.02") == 351)
    }
}
