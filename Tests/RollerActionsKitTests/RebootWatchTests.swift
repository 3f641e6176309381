// SPDX-License-Identifier: MPL-2.0

import Testing

@testable import RollerActionsKit

struct RebootWatchTests {
    private func watch(reachable: Bool = true, bootID: String? = nil) -> RebootWatch {
        RebootWatch(
            .init(wasReachable: reachable, bootID: bootID),
            downTimeout: .seconds(60),
            upTimeout: .seconds(300)
        )
    }

    @Test func `46: one lost echo, or two, are no reboot`() {
        var watch = watch()
        for second in 0..<20 {
            #expect(watch.see(.echo(second % 3 == 0), at: .seconds(second)) == nil)
        }
        #expect(watch.downAt == nil)
    }

    @Test func `three lost echoes are a machine that is down, and the next echo a reboot`() {
        var watch = watch()
        for second in 1...3 { #expect(watch.see(.echo(false), at: .seconds(second)) == nil) }
        #expect(watch.downAt == .seconds(3))
        #expect(watch.see(.echo(true), at: .seconds(30)) == .rebooted(by: "ping"))
    }

    @Test func `a machine that answers all the time did not reboot`() {
        var watch = watch()
        #expect(watch.see(.echo(true), at: .seconds(59)) == nil)
        #expect(watch.see(.echo(true), at: .seconds(60)) == .staysUp("it did not go down"))
    }

    @Test func `a machine that stays away is down`() {
        var watch = watch()
        for second in 1...3 { _ = watch.see(.echo(false), at: .seconds(second)) }
        #expect(watch.see(.echo(false), at: .seconds(302)) == nil)
        #expect(watch.see(.echo(false), at: .seconds(303)) == .staysDown)
    }

    @Test func `47: another boot id settles it, even when no echo was lost`() {
        var watch = watch(bootID: "one")
        #expect(watch.see(.echo(true), at: .seconds(1)) == nil)
        #expect(watch.see(.bootID("one"), at: .seconds(1)) == nil)
        #expect(watch.see(.bootID("two"), at: .seconds(2)) == .rebooted(by: "boot-id"))
    }

    @Test func `a network that was away for a while is no reboot when the boot id is the same`() {
        var watch = watch(bootID: "one")
        for second in 1...3 { _ = watch.see(.echo(false), at: .seconds(second)) }
        #expect(watch.see(.echo(true), at: .seconds(10)) == nil)
        #expect(watch.wantsBootID)
        #expect(watch.see(.bootID("one"), at: .seconds(11)) == .staysUp("it is still the same boot"))
    }

    @Test func `a machine that does not tell its boot id any more gets a minute to do so`() {
        var watch = watch(bootID: "one")
        for second in 1...3 { _ = watch.see(.echo(false), at: .seconds(second)) }
        #expect(watch.see(.echo(true), at: .seconds(10)) == nil)
        #expect(watch.see(.echo(true), at: .seconds(69)) == nil)
        #expect(watch.see(.echo(true), at: .seconds(70)) == .rebooted(by: "ping"))
    }

    @Test func `49: a machine that was down only has to come up`() {
        var watch = watch(reachable: false)
        #expect(watch.see(.echo(false), at: .seconds(100)) == nil)
        #expect(watch.see(.echo(true), at: .seconds(120)) == .rebooted(by: "ping"))
    }

    @Test func `a controller that shows the power off counts as down`() {
        var watch = watch()
        #expect(watch.see(.power(.unknown), at: .seconds(1)) == nil)
        #expect(watch.downAt == nil)
        #expect(watch.see(.power(.off), at: .seconds(2)) == nil)
        #expect(watch.see(.echo(true), at: .seconds(20)) == .rebooted(by: "ping"))
    }
}
