//! What a worker reads into.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// What is read at once, at the most: an answer of 64 KiB with its head, and less than the 128 KiB from which on the
/// allocator asks the system for each. A worker has one such chunk, and cuts what it reads from it.
const CHUNK: usize = 120 * 1024;
/// A chunk with less room than this is left to those who hold a piece of it.
const ROOM: usize = 8 * 1024;

/// What a worker reads into. Pieces are cut from it without a copy, and who waits holds none.
#[derive(Debug)]
pub struct Chunk(RefCell<BytesMut>);

impl Default for Chunk {
    fn default() -> Self {
        Self(RefCell::new(BytesMut::with_capacity(CHUNK)))
    }
}

impl Chunk {
    /// Reads what has come; nothing is the end.
    pub fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        reader: Pin<&mut impl AsyncRead>,
    ) -> Poll<io::Result<Bytes>> {
        self.poll_piece(cx, reader, CHUNK)
    }

    /// The same, and at most so many bytes: for who may hold a piece for long.
    pub fn poll_piece(
        &self,
        cx: &mut Context<'_>,
        reader: Pin<&mut impl AsyncRead>,
        most: usize,
    ) -> Poll<io::Result<Bytes>> {
        let mut chunk = self.0.borrow_mut();
        // All of it again where nobody holds a piece of it any more.
        if !chunk.try_reclaim(CHUNK) && chunk.capacity() < ROOM {
            chunk.reserve(CHUNK);
        }
        let read = poll_read_buf(reader, cx, &mut (&mut *chunk).limit(most));
        read.map_ok(|count| chunk.split_to(count).freeze())
    }
}
