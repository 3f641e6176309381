// SPDX-License-Identifier: MPL-2.0

import CCurl
import Core
import Synchronization

/// The thread's side: a mailbox of commands, one multi handle, and the transfers in flight.
///
/// SAFETY: `multi`, `transfers` and `idle` are touched by the thread in `run()` only. Other threads call `post`, which uses
/// the mailbox under its lock and `curl_multi_wakeup`, the one call libcurl allows from elsewhere; it is never made after
/// `isFinished` was set under the same lock.
final class CurlLoop: @unchecked Sendable {
    enum Command {
        case start(Transfer)
        case cancel(UInt64)
        case resume(UInt64)
        case stop
    }

    private struct Mailbox {
        var commands: [Command] = []
        var isFinished = false
    }

    private let mailbox = Mutex(Mailbox())
    private let multi: OpaqueMulti?
    private var transfers: [UInt64: Transfer] = [:]
    private var idle: [OpaqueMulti] = []

    init() {
        _ = CurlLibrary.ready
        multi = curl_multi_init()
        if let multi { _ = ccurl_multi_set_long(multi, CURLMOPT_MAXCONNECTS, 512) }
    }

    func post(_ command: Command) {
        let refused = mailbox.withLock { mailbox in
            guard !mailbox.isFinished, let multi else { return true }
            mailbox.commands.append(command)
            curl_multi_wakeup(multi)
            return false
        }
        if refused, case .start(let transfer) = command { transfer.fail(.stopped) }
    }

    func run() {
        guard let multi else { return finish(nil) }
        var isStopping = false
        while !isStopping {
            let commands = mailbox.withLock { mailbox in
                defer { mailbox.commands = [] }
                return mailbox.commands
            }
            for command in commands {
                switch command {
                case .start(let transfer): start(transfer, multi)
                case .cancel(let id): cancel(id, multi)
                case .resume(let id): transfers[id]?.goOn()
                case .stop: isStopping = true
                }
            }
            var running: Int32 = 0
            curl_multi_perform(multi, &running)
            collect(multi)
            if !isStopping { curl_multi_poll(multi, nil, 0, 60_000, nil) }
        }
        finish(multi)
    }

    private func start(_ transfer: Transfer, _ multi: OpaqueMulti) {
        guard !transfer.token.isCancelled else { return transfer.fail(.cancelledByCaller) }
        guard let easy = idle.popLast() ?? curl_easy_init() else {
            return transfer.fail(HTTPClientError(.other, "cannot make a transfer: out of memory"))
        }
        do throws(HTTPClientError) {
            try transfer.prepare(easy)
        } catch {
            curl_easy_cleanup(easy)
            return transfer.fail(error)
        }
        guard curl_multi_add_handle(multi, easy) == CURLM_OK else {
            curl_easy_cleanup(easy)
            return transfer.fail(HTTPClientError(.other, "cannot start a transfer"))
        }
        transfers[transfer.id] = transfer
    }

    private func cancel(_ id: UInt64, _ multi: OpaqueMulti) {
        guard let transfer = transfers.removeValue(forKey: id) else { return }
        release(transfer, multi)
        transfer.fail(.cancelledByCaller)
    }

    private func collect(_ multi: OpaqueMulti) {
        var left: Int32 = 0
        while let message = curl_multi_info_read(multi, &left) {
            guard message.pointee.msg == CURLMSG_DONE, let easy = message.pointee.easy_handle else { continue }
            let code = message.pointee.data.result
            var context: UnsafeMutableRawPointer?
            ccurl_get_pointer(easy, CURLINFO_PRIVATE, &context)
            // SAFETY: the private pointer is the transfer that `transfers` keeps alive until it is removed here.
            guard let context else { continue }
            let transfer = Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
            transfers[transfer.id] = nil
            let result = transfer.result(code)
            release(transfer, multi)
            transfer.complete(result)
        }
    }

    /// Takes the handle away from the transfer and keeps it for the next one.
    private func release(_ transfer: Transfer, _ multi: OpaqueMulti) {
        guard let easy = transfer.detach() else { return }
        curl_multi_remove_handle(multi, easy)
        guard idle.count < 64 else { return curl_easy_cleanup(easy) }
        curl_easy_reset(easy)
        idle.append(easy)
    }

    private func finish(_ multi: OpaqueMulti?) {
        let commands = mailbox.withLock { mailbox in
            mailbox.isFinished = true
            defer { mailbox.commands = [] }
            return mailbox.commands
        }
        if let multi {
            for transfer in transfers.values {
                release(transfer, multi)
                transfer.fail(.stopped)
            }
            transfers = [:]
            idle.forEach { curl_easy_cleanup($0) }
            idle = []
            curl_multi_cleanup(multi)
        }
        for case .start(let transfer) in commands { transfer.fail(.stopped) }
    }
}

/// libcurl's handles are untyped pointers.
typealias OpaqueMulti = UnsafeMutableRawPointer

/// The library's global state, made once.
private enum CurlLibrary {
    static let ready = curl_global_init(ccurl_global_all)
}

extension HTTPClientError {
    static let stopped = HTTPClientError(.cancelled, "the HTTP client has been shut down")
    static let cancelledByCaller = HTTPClientError(.cancelled, "the request was cancelled")
}
