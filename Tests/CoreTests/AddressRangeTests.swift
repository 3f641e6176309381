// SPDX-License-Identifier: MPL-2.0

import Core
import Testing

struct AddressRangeTests {
    @Test(
        arguments: [
            ("10.0.0.1", ["10.0.0.1", "::ffff:10.0.0.1"], ["10.0.0.2", "::1", "", "10.0.0.1 "]),
            ("10.1.0.0/16", ["10.1.0.0", "10.1.255.255"], ["10.2.0.0", "10.0.255.255"]),
            ("192.0.2.128/25", ["192.0.2.128", "192.0.2.255"], ["192.0.2.127"]),
            ("0.0.0.0/0", ["203.0.113.9", "::ffff:1.2.3.4"], ["2001:db8::1"]),
            ("::1", ["::1", "0:0:0:0:0:0:0:1"], ["::2", "127.0.0.1"]),
            ("fd00::/8", ["fd00::1", "fdff:ffff::"], ["fe00::", "10.0.0.1"]),
            ("2001:db8::/33", ["2001:db8:7fff::"], ["2001:db8:8000::"]),
            ("::ffff:10.0.0.0/104", ["10.255.0.1", "::ffff:10.0.0.9"], ["11.0.0.1"]),
            ("::/0", ["2001:db8::1", "::1"], ["10.0.0.1"]),
        ]
    )
    func `a network has its addresses, in either spelling, and no other`(
        _ text: String,
        _ inside: [String],
        _ outside: [String]
    ) throws {
        let range = try #require(AddressRange(text))
        for address in inside { #expect(range.contains(address), "\(address)") }
        for address in outside { #expect(!range.contains(address), "\(address)") }
    }

    @Test(
        arguments: [
            "", "here", "10.0.0", "10.0.0.256", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/",
            "10.0.0.0/8/8",
            "10.0.0.0/eight", "fd00::/129", ":::", "[::1]", "10.0.0.1:80", "*", "10.0.0.0-10.0.0.9",
            "10.0.0.0/99999999999999999999",
        ]
    )
    func `what is no address and no network is none`(_ text: String) {
        #expect(AddressRange(text) == nil)
    }
}
