// SPDX-License-Identifier: MPL-2.0

import NIOCore
import NIOHTTPTypes
import Synchronization

/// Sits in a connection's pipeline, remembers that the client hung up, and tells when an answer has left.
///
/// The server allows half-closed connections, so a client's departure does not close the channel by itself; it shows as
/// the end of the input.
final class ConnectionWatch: ChannelDuplexHandler, RemovableChannelHandler, Sendable {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    private struct State {
        var isGone = false
        var isClosed = false
        /// Waits for the end of the answer under way.
        var answer: EventLoopPromise<Void>?
        var next = 0
        var waiters: [Int: @Sendable () -> Void] = [:]
    }

    private let state = Mutex(State())

    /// Whether the client is known to have hung up.
    var isGone: Bool { state.withLock { $0.isGone } }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if let event = event as? ChannelEvent, event == .inputClosed {
            noteGone()
        }
        context.fireUserInboundEventTriggered(event)
    }

    func channelInactive(context: ChannelHandlerContext) {
        noteGone()
        noteClosed()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        noteGone()
        context.fireErrorCaught(error)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        noteClosed()
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard case .end = unwrapOutboundIn(data), let answer = takeAnswer() else {
            return context.write(data, promise: promise)
        }
        answer.futureResult.cascade(to: promise)
        context.write(data, promise: answer)
    }

    /// Asks for word of the next answer.
    ///
    /// The future succeeds when its last byte was handed to the system, and fails if that cannot happen any more. An
    /// answer's writer returns earlier, as soon as the bytes are queued.
    func expectAnswer(on eventLoop: any EventLoop) -> EventLoopFuture<Void> {
        let answer = eventLoop.makePromise(of: Void.self)
        let isClosed = state.withLock { state in
            if !state.isClosed { state.answer = answer }
            return state.isClosed
        }
        if isClosed { answer.fail(ChannelError.ioOnClosedChannel) }
        return answer.futureResult
    }

    /// Takes back what `expectAnswer` asked for, if no answer has ended since.
    func forgetAnswer() {
        takeAnswer()?.fail(CancellationError())
    }

    /// Calls back once when the client is gone, at once if it is already; forget the number when that has become pointless.
    func whenGone(_ notice: @escaping @Sendable () -> Void) -> Int? {
        let id: Int? = state.withLock { state in
            guard !state.isGone else { return nil }
            state.next += 1
            state.waiters[state.next] = notice
            return state.next
        }
        if id == nil { notice() }
        return id
    }

    /// Takes back a wish to be called.
    func forget(_ id: Int?) {
        guard let id else { return }
        state.withLock { _ = $0.waiters.removeValue(forKey: id) }
    }

    private func takeAnswer() -> EventLoopPromise<Void>? {
        state.withLock { state in
            defer { state.answer = nil }
            return state.answer
        }
    }

    private func noteClosed() {
        state.withLock { $0.isClosed = true }
        takeAnswer()?.fail(ChannelError.ioOnClosedChannel)
    }

    private func noteGone() {
        let waiters = state.withLock { state in
            state.isGone = true
            defer { state.waiters = [:] }
            return state.waiters
        }
        for notice in waiters.values {
            notice()
        }
    }
}
