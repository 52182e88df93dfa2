//! Frames of the replication stream to the cells of an inserted row, or of the row that a message stands for.
//!
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

use crate::layout::Layout;
use crate::messages;

pub(crate) const HEADER: usize = 25; // kind, start LSN, end LSN, server clock

/// Where a cell's bytes stand in its frame; `None` where it is null or not read.
pub type Span = Option<(usize, usize)>;

/// Finds the cells of an Insert of the layout's table, or of its messages, and nothing else, in a frame that ends with it.
///
/// `None`: declined. Every column that is required has a span then, of the format that was asked for.
pub fn split(frame: &[u8], layout: &Layout, cells: &mut Vec<Span>) -> Option<()> {
    if let Some(message) = &layout.message {
        return messages::split(frame, layout, message, cells);
    }
    cells.clear();
    let message = frame.get(HEADER..)?;
    let (&[b'I', o0, o1, o2, o3, b'N', c0, c1], _) = message.split_first_chunk()? else {
        return None;
    };
    let known = u32::from_be_bytes([o0, o1, o2, o3]) == layout.relation
        && usize::from(u16::from_be_bytes([c0, c1])) == layout.columns.len();
    if frame.first() != Some(&b'w') || !known {
        return None;
    }
    let expected = if layout.binary { b'b' } else { b't' };
    let mut at = HEADER + 8;
    for column in &layout.columns {
        let rest = frame.get(at..)?;
        let kind = *rest.first()?;
        let span = match kind {
            b'n' | b'u' => {
                at += 1;
                None
            }
            b't' | b'b' => {
                let size = u32::from_be_bytes(*rest.get(1..)?.first_chunk()?);
                let from = at + 5;
                at = from.checked_add(usize::try_from(size).ok()?)?;
                frame.get(from..at)?;
                Some((from, at))
            }
            _ => return None,
        };
        let fits = column.read.is_none() || kind == expected || (kind == b'n' && !column.required);
        if !fits {
            return None;
        }
        cells.push(span);
    }
    (at == frame.len()).then_some(())
}

/// The bytes of a cell.
#[must_use]
pub fn cell<'a>(frame: &'a [u8], cells: &[Span], place: usize) -> Option<&'a [u8]> {
    let (from, to) = (*cells.get(place)?)?;
    frame.get(from..to)
}
