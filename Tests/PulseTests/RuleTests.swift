// SPDX-License-Identifier: MPL-2.0

import Core
import Testing

@testable import Pulse

struct AckWindowTests {
    private func flush(_ window: inout AckWindow) -> [AckWindow.Frame] {
        var frames: [AckWindow.Frame] = []
        window.flush { frames.append($0) }
        return frames
    }

    @Test func `everything handled in order goes out as one frame`() {
        var window = AckWindow()
        for tag in 1...5 { precondition(window.deliver(UInt64(tag))) }
        for tag in [1, 3, 2] { window.acknowledge(UInt64(tag)) }
        #expect(flush(&window) == [.ack(3, multiple: true)])
        #expect(flush(&window) == [])
        #expect(window.outstanding == 2)
    }

    @Test func `a slow delivery keeps later ones from being covered`() {
        var window = AckWindow()
        for tag in 1...4 { precondition(window.deliver(UInt64(tag))) }
        for tag in [2, 4] { window.acknowledge(UInt64(tag)) }
        #expect(flush(&window) == [.ack(2, multiple: false), .ack(4, multiple: false)])
        window.acknowledge(1)
        #expect(flush(&window) == [.ack(1, multiple: false)])
        window.acknowledge(3)
        #expect(flush(&window) == [.ack(3, multiple: false)])
        #expect(window.outstanding == 0)
    }

    @Test func `a refused delivery is told at once and covered by none`() {
        var window = AckWindow()
        for tag in 1...3 { precondition(window.deliver(UInt64(tag))) }
        let refusals = [window.refuse(2, requeue: true), window.refuse(2, requeue: true)]
        #expect(refusals == [.nack(2, requeue: true), nil])
        window.acknowledge(1)
        window.acknowledge(3)
        #expect(flush(&window) == [.ack(3, multiple: true)])
    }

    @Test func `a gap in the numbers is noticed, and unknown numbers are ignored`() {
        var window = AckWindow()
        precondition(window.deliver(1))
        let isNext = window.deliver(3)
        #expect(!isNext)
        window.acknowledge(9)
        #expect(flush(&window) == [])
    }

    @Test func `in any order of handling every number is told exactly once`() {
        var window = AckWindow()
        var told: [UInt64: Int] = [:]
        for round in 0..<20 {
            let tags = (1...300).map { UInt64(round * 300 + $0) }
            for tag in tags { precondition(window.deliver(tag)) }
            var before = window.floor
            for tag in tags.shuffled() {
                window.acknowledge(tag)
                guard Bool.random() else { continue }
                for frame in flush(&window) {
                    guard case .ack(let last, let multiple) = frame else { continue }
                    for tag in (multiple ? before + 1 : last)...last where !multiple || told[tag] == nil {
                        told[tag, default: 0] += 1
                    }
                    before = max(before, window.floor)
                }
            }
            for frame in flush(&window) {
                guard case .ack(let last, let multiple) = frame else { continue }
                for tag in (multiple ? before + 1 : last)...last where !multiple || told[tag] == nil {
                    told[tag, default: 0] += 1
                }
                before = max(before, window.floor)
            }
        }
        #expect(told.count == 6000)
        #expect(told.values.allSatisfy { $0 == 1 })
    }
}

struct BackOffTests {
    @Test func `the first pause is short and the longest is bounded`() {
        var backOff = BackOff()
        let first = backOff.next(random: 0.99)
        #expect(first <= .milliseconds(100))
        var last = Duration.zero
        for _ in 0..<40 {
            last = backOff.next(random: 0.99)
            #expect(last <= .seconds(15))
        }
        #expect(last > .seconds(14))
        backOff.reset()
        let again = backOff.next(random: 0)
        #expect(again <= .milliseconds(100))
    }
}

struct ConfigurationTests {
    @Test func `a full URL is read`() throws {
        let read = try PulseConfiguration(url: "amqps://us%40er:p%3Ass@[::1]:1234/%2Fv?heartbeat=7&verify=verify_none")
        #expect(read.user == "us@er")
        #expect(read.password == "p:ss")
        #expect(read.host == "::1")
        #expect(read.port == 1234)
        #expect(read.virtualHost == "/v")
        #expect(read.heartbeat == .seconds(7))
        #expect(read.tls?.verifiesPeer == false)
        #expect(read.namespace == "us@er")
    }

    @Test func `what a URL leaves out has its default`() throws {
        let read = try PulseConfiguration(url: "amqp://broker")
        #expect(read.port == 5672)
        #expect(read.virtualHost == "/")
        #expect(read.tls == nil)
        #expect(try PulseConfiguration(url: "amqps://broker/").port == 5671)
    }

    @Test(arguments: ["http://x", "amqp://x:0", "amqp://x:y", "amqp://x/a/b", "amqp://%zz", "amqp://x?heartbeat=0"])
    func `a malformed URL is refused`(_ url: String) {
        #expect(throws: PulseError.self) { try PulseConfiguration(url: url) }
    }

    @Test func `the password never shows`() throws {
        let read = try PulseConfiguration(url: "amqp://user:sesame@broker")
        var dumped = ""
        dump(read, to: &dumped)
        #expect(!("\(read)" + String(reflecting: read) + dumped).contains("sesame"))
    }

    @Test func `the separate settings are read, and what is missing is named`() {
        let full = Settings(environment: [
            "PULSE_HOSTNAME": "h", "PULSE_USERNAME": "u", "PULSE_PASSWORD": "p", "PULSE_AMQPS": "false",
        ])
        let read = PulseConfiguration(settings: full)
        #expect(read.host == "h" && read.port == 5672 && read.namespace == "u")
        #expect(throws: Never.self) { try full.check() }
        let empty = Settings(environment: [:])
        _ = PulseConfiguration(settings: empty)
        #expect(throws: ConfigurationError.self) { try empty.check() }
    }
}
