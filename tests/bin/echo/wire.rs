//! What the echo service's .proto file would say.

/// Asks for an answer in one piece.
pub(crate) const SAY: &str = "/echo.Echo/Say";
/// Asks for a stream of answers.
pub(crate) const COUNT: &str = "/echo.Echo/Count";

/// Question and answer.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Text {
    /// Comes back as it is.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) ballast: Vec<u8>,
    /// How many answers a stream has.
    #[prost(uint32, tag = "2")]
    pub(crate) count: u32,
    /// Milliseconds between two of them.
    #[prost(uint32, tag = "3")]
    pub(crate) pace: u32,
}
