//! The wire messages, generated from spec/proto/talaria/v1/wire.proto by `cargo xtask codegen` and committed.
//! Byte fields are `Bytes` that share the frame they were decoded from. Nothing outside [`crate::message`] and
//! [`crate::frame`] should need them: parsed types live there. Those that hold a token or what people say print their
//! names only.

mod generated;
pub(crate) mod put;

pub use generated::*;

macro_rules! secretive {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    )*};
}
secretive!(Hello, Reauth, Send, Content, Metadata, Blob, FullEntry);

#[cfg(test)]
mod tests {
    use super::{Content, Frame, Hello, content, frame};

    #[test]
    fn neither_tokens_nor_texts_are_printed() {
        let hello = Hello { token: "ey-token".to_owned(), ..Hello::default() };
        let frame = Frame { critical: true, body: Some(frame::Body::Hello(hello)) };
        let text = Content { body: Some(content::Body::Text("hush".to_owned())), metadata: vec![] };
        let printed = format!("{frame:?} {text:?}");
        assert!(!printed.contains("ey-token") && !printed.contains("hush"), "{printed}");
    }
}
