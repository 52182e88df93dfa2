//! Logical messages of the replication stream to the cells of the rows that they stand for.
//!
//! The content is a JSON object, as `cdc/outbox/messages.py` reads it. All of it is read once, and cells are where it has
//! them: so a text with an escape is declined.

use std::borrow::Cow;

use crate::frames::{self, Span};
use crate::json::{DEPTH, Kind, Reader};
use crate::layout::Layout;

/// What is read of messages: those of one prefix, and of these members in this order.
#[derive(Clone, Debug)]
pub struct Message {
    /// What marks them.
    pub prefix: Box<[u8]>,
    /// The members of the object.
    pub members: Vec<Member>,
}

/// One member.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name as JSON.
    pub name: Box<[u8]>,
    /// What becomes of its value.
    pub value: Value,
}

/// What becomes of a member's value.
#[derive(Clone, Debug)]
pub enum Value {
    /// It is a cell of the row.
    Cell(usize),
    /// It is an object of these members, which have no others within.
    Given(Vec<Member>),
}

impl Message {
    /// The places of all cells.
    #[must_use]
    pub fn places(&self) -> Vec<usize> {
        places(&self.members)
    }
}

fn places(members: &[Member]) -> Vec<usize> {
    let of_member = |member: &Member| match &member.value {
        Value::Cell(place) => vec![*place],
        Value::Given(given) => places(given),
    };
    members.iter().flat_map(of_member).collect()
}

/// Finds the cells in a frame that ends with such a message, and nothing else. `None`: declined.
pub fn split(frame: &[u8], layout: &Layout, message: &Message, cells: &mut Vec<Span>) -> Option<()> {
    let content = content(frame, &message.prefix)?;
    let mut scan = Scan { reader: Reader::new(content)?, before: frame.len() - content.len(), layout, cells };
    scan.cells.clear();
    scan.cells.resize(layout.columns.len(), None);
    scan.object(&message.members)?;
    scan.reader.ended().then_some(())
}

fn content<'a>(frame: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    frame.strip_prefix(b"w")?;
    let of_transaction = frame.get(frames::HEADER..)?.strip_prefix(b"M\x01")?;
    let marked = of_transaction.get(8..)?.strip_prefix(prefix)?.strip_prefix(b"\0")?; // behind the LSN
    let (size, content) = marked.split_first_chunk()?;
    (usize::try_from(u32::from_be_bytes(*size)).ok()? == content.len()).then_some(content)
}

struct Scan<'a> {
    reader: Reader<'a>,
    before: usize,
    layout: &'a Layout,
    cells: &'a mut Vec<Span>,
}

impl Scan<'_> {
    fn object(&mut self, members: &[Member]) -> Option<()> {
        self.reader.take(b'{')?;
        for (number, member) in members.iter().enumerate() {
            if number > 0 {
                self.reader.take(b',')?;
            }
            if !self.reader.found_key(&member.name) {
                return None;
            }
            match &member.value {
                Value::Cell(place) => *self.cells.get_mut(*place)? = self.cell(*place)?,
                Value::Given(given) if given.is_empty() && self.reader.kind()? == Kind::Null => self.reader.null()?,
                Value::Given(given) => self.object(given)?,
            }
        }
        self.reader.take(b'}')
    }

    fn cell(&mut self, place: usize) -> Option<Span> {
        let kind = self.reader.kind()?;
        let from = self.reader.at();
        let (from, to) = match kind {
            Kind::Null if self.layout.columns.get(place)?.required => return None,
            Kind::Null => {
                self.reader.null()?;
                return Some(None);
            }
            _ if place == self.layout.payload => {
                self.reader.skip(DEPTH)?;
                (from, self.reader.at())
            }
            Kind::Text => match self.reader.string()? {
                Cow::Borrowed(text) => (from + 1, from + 1 + text.len()),
                Cow::Owned(_) => return None,
            },
            Kind::Number => {
                self.reader.number()?;
                (from, self.reader.at())
            }
            _ => return None,
        };
        Some(Some((self.before + from, self.before + to)))
    }
}
