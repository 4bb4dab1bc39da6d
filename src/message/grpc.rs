//! What gRPC says in the fields of HTTP/2 (its doc/PROTOCOL-HTTP2.md).

use http::{Method, Version};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

use super::field::Kind;
use super::fields::Fields;
use super::head::Head;

/// Of calls and of their answers; `+` or `;` may come behind it.
pub const CONTENT_TYPE: &[u8] = b"application/grpc";

/// What a message may not hold as it is, beside bytes outside of ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Whether a request is a call of gRPC. One of gRPC-Web is not: that reads the end of an answer from its body.
#[must_use]
pub fn is_call(head: &Head) -> bool {
    let kind = || head.fields.iter().find(|field| field.name.eq_ignore_ascii_case(b"content-type"));
    head.version == Version::HTTP_2
        && head.method == Method::POST
        && kind().is_some_and(|field| is_content_type(field.value))
}

fn is_content_type(value: &[u8]) -> bool {
    let parts = value.split_at_checked(CONTENT_TYPE.len());
    parts.is_some_and(|(start, behind)| {
        start.eq_ignore_ascii_case(CONTENT_TYPE) && matches!(behind.first(), None | Some(b'+' | b';'))
    })
}

/// Says how a call has ended. Without a body behind it, that is the whole answer ("Trailers-Only").
pub fn status(fields: &mut Fields, status: u8, message: &str) {
    fields.push_as(Kind::Plain, b"grpc-status", status.to_string().as_bytes());
    let message = percent_encode(message.as_bytes(), ENCODED).to_string();
    fields.push_as(Kind::Plain, b"grpc-message", message.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_known_by_its_content_type() {
        for (value, wanted) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("Application/gRPC", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grpcx", false),
            ("application/grp", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_content_type(value.as_bytes()), wanted, "{value}");
        }
    }

    #[test]
    fn a_message_is_visible_ascii_and_can_be_read_back() {
        for (message, wanted) in [
            ("a key, and `more`", "a key, and `more`"),
            ("100 %\r\nx: y", "100 %25%0D%0Ax: y"),
            ("é~\x7f", "%C3%A9~%7F"),
        ] {
            let mut fields = Fields::default();
            status(&mut fields, 7, message);
            let values: Vec<_> = fields.iter().map(|field| field.value).collect();
            assert_eq!(values, [b"7", wanted.as_bytes()]);
        }
    }
}
