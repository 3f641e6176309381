// SPDX-License-Identifier: MPL-2.0

/// Decides how soon to ask the queue for work again.
public enum ClaimPacing {
    /// How one request for work went.
    public enum Answer: Sendable, Hashable {
        /// There was work, which has been done.
        case work
        /// There was none; the queue took this long to say so.
        case nothing(after: Duration)
        /// The request failed.
        case failure
    }

    /// The pause before the next request.
    ///
    /// A queue that held the request for most of its 20 seconds has done the waiting for us; asking again at once costs three requests a
    /// minute and leaves no time in which new work goes unseen.
    public static func pause(after answer: Answer, interval: Duration) -> Duration {
        switch answer {
        case .work: .zero
        case .nothing(let duration): duration >= .seconds(15) ? .zero : interval
        case .failure: interval
        }
    }
}
