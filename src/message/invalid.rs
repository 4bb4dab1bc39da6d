//! What is wrong with a message.

/// What is wrong with a message, whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Its head cannot be read at all.
    #[error(transparent)]
    Syntax(#[from] httparse::Error),
    /// A line that ends without a carriage return (RFC 9112, 2.2: a sender must send both).
    #[error("a line of its head does not end with CR LF")]
    LineEnd,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("its version is neither HTTP/1.0 nor HTTP/1.1")]
    Version,
    /// No path, and nothing that leads to one.
    #[error("its target is not a path, or an address with one")]
    Target,
    /// More than a target may have.
    #[error("its target is too long")]
    TargetTooLong,
    /// More than a head, or a body's trailers, may have.
    #[error("its head or its trailers are too large")]
    TooLarge,
    /// Not from 100 to 999.
    #[error("its status is no status")]
    Status,
    /// A name or a value.
    #[error("one of its fields has a name or a value that no field may have")]
    Field,
    /// `Content-Length` is no number, is there twice, or contradicts `Transfer-Encoding`.
    #[error("the length of its body has no reading, or more than one")]
    Length,
    /// `Transfer-Encoding` is not `chunked`.
    #[error("its transfer coding is not `chunked`, once, over HTTP/1.1")]
    Coding,
    /// `Expect` is not `100-continue` (RFC 9110, 10.1.1).
    #[error("it expects something else than 100-continue")]
    Expectation,
    /// A chunk is no chunk.
    #[error("its body is not in chunks, as its head said")]
    Chunk,
    /// Too many interim answers.
    #[error("it sends interim answers without end")]
    Interim,
}
