//! Where WebSocket frames begin and end, read from their headers alone (RFC 6455, 5.2).
//!
//! A tunnel changes no byte. It follows frames only so that a close of ours stands between two of them.

/// Follows one direction of a WebSocket connection.
#[derive(Debug, Default)]
pub struct Frames {
    header: [u8; 14],
    have: usize,
    payload: u64,
    closed: bool,
    fragmented: bool,
}

impl Frames {
    /// Takes bytes that were passed on, all of them.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.step(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// How many of these bytes belong to the frame that has begun; 0 where none has.
    #[must_use]
    pub fn rest_of_frame(&self, bytes: &[u8]) -> usize {
        let mut ahead =
            Self { header: self.header, have: self.have, payload: self.payload, ..Self::default() };
        let mut taken = 0;
        while !ahead.is_between() && taken < bytes.len() {
            taken += ahead.step(bytes.get(taken..).unwrap_or_default());
        }
        taken
    }

    /// No frame has begun that has not ended.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.have == 0 && self.payload == 0
    }

    /// A message has begun whose last fragment has not passed: no other may stand between.
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        self.fragmented
    }

    /// A close frame has passed: nothing may follow it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes as many bytes as belong to the payload, or one of a header.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.payload > 0 {
            let taken = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
            self.payload -= taken as u64;
            return taken;
        }
        if let (Some(slot), Some(byte)) = (self.header.get_mut(self.have), bytes.first()) {
            *slot = *byte;
            self.have += 1;
        }
        let [first, second, ..] = self.header;
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        if self.have >= 2 && self.have == 2 + extended + mask {
            let length = self.header.iter().skip(2).take(extended);
            self.payload = match extended {
                0 => u64::from(second & 0x7f),
                _ => length.fold(0, |length, byte| length << 8 | u64::from(*byte)),
            };
            self.closed |= first & 0x0f == 8;
            // Control frames may stand inside a fragmented message, and end none.
            if first & 0x08 == 0 {
                self.fragmented = first & 0x80 == 0;
            }
            self.have = 0;
        }
        1
    }
}

/// A close frame of a server (RFC 6455, 5.5.1).
#[must_use]
pub fn close(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [0x88, 2, high, low]
}

/// A close frame of a client, masked as a client must (RFC 6455, 5.3); the mask hides nothing here, and need not.
#[must_use]
pub fn masked_close(code: u16) -> [u8; 8] {
    let [high, low] = code.to_be_bytes();
    let mask = fastrand::u32(..).to_be_bytes();
    let [a, b, c, d] = mask;
    [0x88, 0x82, a, b, c, d, high ^ a, low ^ b]
}

/// A whole text frame of a server.
#[must_use]
pub fn text(message: &str) -> Vec<u8> {
    let length = message.len();
    let mut frame = vec![0x81];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => frame.push(short),
        (_, Ok(middle)) => {
            frame.push(126);
            frame.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(message.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, masked: bool, payload: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match payload {
            0..=125 => bytes.push(mask | u8::try_from(payload).expect("small")),
            126..=65_535 => {
                bytes.push(mask | 0x7e);
                bytes.extend_from_slice(&u16::try_from(payload).expect("middle").to_be_bytes());
            }
            _ => {
                bytes.push(mask | 0x7f);
                bytes.extend_from_slice(&(payload as u64).to_be_bytes());
            }
        }
        bytes.resize(bytes.len() + if masked { 4 } else { 0 } + payload, 0xAA);
        bytes
    }

    #[test]
    fn boundaries_are_found_however_the_bytes_are_cut() {
        let mut stream = Vec::new();
        let mut ends = vec![0];
        for (payload, masked) in
            [(0, false), (5, true), (126, false), (300, true), (70_000, true), (125, false)]
        {
            stream.extend(frame(0x82, masked, payload));
            ends.push(stream.len());
        }
        for cut in [1, 2, 3, 7, 1000, stream.len()] {
            let mut frames = Frames::default();
            let mut passed = 0;
            for piece in stream.chunks(cut) {
                let next = ends.iter().copied().find(|end| *end >= passed).expect("the last end");
                assert_eq!(
                    frames.rest_of_frame(piece),
                    (next - passed).min(piece.len()),
                    "at {passed} cut {cut}"
                );
                frames.pass(piece);
                passed += piece.len();
                assert_eq!(frames.is_between(), ends.contains(&passed), "at {passed} cut {cut}");
            }
            assert!(!frames.is_closed());
        }
    }

    #[test]
    fn a_close_frame_is_the_last() {
        for bytes in [close(4001).to_vec(), masked_close(1001).to_vec(), frame(0x88, true, 2)] {
            let mut frames = Frames::default();
            frames.pass(&bytes);
            assert!(frames.is_closed() && frames.is_between());
        }
        let mut frames = Frames::default();
        frames.pass(&text("hello"));
        assert!(frames.is_between() && !frames.is_closed());
    }
}
