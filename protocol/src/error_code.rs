//! The frozen table of wire error codes: number, name, what a client may do, and whether anything happened.
//! The prose is spec/errors.md; a test there and here keeps both the same. A gap is a retired code.

/// Whether the request took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// Nothing did.
    No,
    /// It did, now or at an earlier try.
    Yes,
    /// It may have: ask again with the same client message id.
    Unknown,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal $text:literal, $retry:literal, $happened:ident;)*) => {
        /// A wire error code. The numbers are frozen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum ErrorCode { $($(#[$doc])* $name = $code),* }

        impl ErrorCode {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
            /// The code of this number; `None` for one of a newer protocol.
            pub const fn from_wire(code: u32) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }
            /// Its name in spec/errors.md.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
            /// The same request may succeed later, unchanged.
            pub const fn retryable(self) -> bool {
                match self { $(Self::$name => $retry),* }
            }
            /// Whether the refused request took effect.
            pub const fn happened(self) -> Happened {
                match self { $(Self::$name => Happened::$happened),* }
            }
        }
    };
}

codes! {
    /// A rule of the protocol was broken.
    ProtocolViolation = 1 "PROTOCOL_VIOLATION", false, No;
    /// A critical frame, or a protocol version, that this end does not know.
    Unsupported = 2 "UNSUPPORTED", false, No;
    /// No complete Hello in time.
    HelloTimeout = 3 "HELLO_TIMEOUT", true, No;
    /// Nothing was heard for two keepalive periods, or the peer took nothing for as long.
    KeepaliveTimeout = 4 "KEEPALIVE_TIMEOUT", true, No;
    /// The node is going down or moves its clients.
    Draining = 5 "DRAINING", true, No;
    /// A new session of the same device and role.
    TakenOver = 6 "TAKEN_OVER", false, No;
    /// A defect of the server; the session ends.
    Internal = 7 "INTERNAL", true, Unknown;
    /// The client asked for the end.
    LoggedOut = 8 "LOGGED_OUT", false, No;
    /// The client does not take what it granted credit for.
    SlowConsumer = 9 "SLOW_CONSUMER", true, No;

    /// The token is not valid here: forged, of another issuer or audience, not of this algorithm.
    TokenInvalid = 16 "TOKEN_INVALID", false, No;
    /// The token's time is over.
    TokenExpired = 17 "TOKEN_EXPIRED", false, No;
    /// The token is of another user than the session.
    TokenOfAnother = 18 "TOKEN_OF_ANOTHER", false, No;
    /// The user has as many devices as the limit lets.
    TooManyDevices = 19 "TOO_MANY_DEVICES", false, No;

    /// A queue is full: again after `retry_after_ms`.
    Busy = 32 "BUSY", true, No;
    /// The log takes no writes until the node is reopened.
    ReadOnly = 33 "READ_ONLY", true, No;
    /// The write's outcome is not known: again with the same id.
    OutcomeUnknown = 34 "OUTCOME_UNKNOWN", true, Unknown;
    /// More requests wait than `Limits.requests_in_flight_max`.
    TooManyRequests = 35 "TOO_MANY_REQUESTS", true, No;
    /// No credit is left for the answer: grant some and ask again.
    NoCredit = 36 "NO_CREDIT", true, No;
    /// The log could not be read.
    ReadFailed = 37 "READ_FAILED", true, No;

    /// No such conversation, or none that this user may know of.
    NotFound = 48 "NOT_FOUND", false, No;
    /// The user may see the conversation, but not do this.
    Forbidden = 49 "FORBIDDEN", false, No;
    /// A field has no valid value.
    Invalid = 50 "INVALID", false, No;
    /// A field is larger than its limit.
    TooLarge = 51 "TOO_LARGE", false, No;
    /// The group has as many members as the limit lets.
    GroupFull = 52 "GROUP_FULL", false, No;
    /// No user of that id is known.
    UnknownUser = 53 "UNKNOWN_USER", false, No;

    /// The client message id is older than the dedup window: nothing was appended now.
    IdExpired = 64 "ID_EXPIRED", false, Unknown;
    /// The client message id's time is too far ahead.
    IdFromFuture = 65 "ID_FROM_FUTURE", false, No;
    /// The client message id was used before, with other content.
    Conflict = 66 "CONFLICT", false, No;
    /// The send named in `after` was not accepted.
    OutOfOrder = 67 "OUT_OF_ORDER", true, No;
    /// The client's chain differs from the log's at its cursor.
    ChainMismatch = 68 "CHAIN_MISMATCH", false, No;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_ascend() {
        for pair in ErrorCode::ALL.windows(2) {
            assert!((pair[0] as u32) < pair[1] as u32);
        }
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_wire(*code as u32), Some(*code));
        }
        assert_eq!(ErrorCode::from_wire(0), None);
    }
}
