//! What is read of a row, and how: one table's columns in one format.

use crate::keys::Frame;
use crate::messages::Message;
use crate::moments::RecordTime;
use crate::values::Read;

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// How its cell is read; `None`: not at all.
    pub read: Option<Read>,
    /// Whether a null cell declines the row.
    pub required: bool,
    /// Whether a null cell is a header without a value; else it is no header.
    pub null_header: bool,
}

/// The parts of an event by their places, and how every column is read.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The table's oid.
    pub relation: u32,
    /// Whether cells come in binary format.
    pub binary: bool,
    /// In the table's order.
    pub columns: Vec<Column>,
    /// The event's id.
    pub id: usize,
    /// The record's key.
    pub key: usize,
    /// The event's type.
    pub event_type: usize,
    /// What is encoded.
    pub payload: usize,
    /// What decides about the topic.
    pub topic: Vec<usize>,
    /// Further headers.
    pub headers: Vec<usize>,
    /// Whether an empty payload is special.
    pub tombstones: bool,
    /// How the key's text becomes the key.
    pub key_frame: Frame,
    /// The time of the record, where it is not the commit's for all.
    pub time: Option<(usize, RecordTime)>,
    /// Columns that must be readable although nothing is made of their text here.
    pub checked: Vec<usize>,
    /// The messages that stand for such rows; `None`: frames hold the rows themselves.
    pub message: Option<Message>,
}

/// The places of an event's parts, and the form of the key.
#[derive(Clone, Debug)]
pub struct Places {
    /// The event's id.
    pub id: usize,
    /// The record's key.
    pub key: usize,
    /// The event's type.
    pub event_type: usize,
    /// What is encoded.
    pub payload: usize,
    /// What decides about the topic.
    pub topic: Vec<usize>,
    /// Further headers.
    pub headers: Vec<usize>,
    /// How the key's text becomes the key.
    pub key_frame: Frame,
    /// The time of the record, where it is not the commit's for all.
    pub time: Option<(usize, RecordTime)>,
}

impl Layout {
    /// `None` when a cell is to be read in a way that is not known, or a place lies outside of the row.
    #[must_use]
    pub fn new(relation: u32, binary: bool, cells: &[String], places: Places, tombstones: bool) -> Option<Self> {
        let Places { id, key, event_type, payload, topic, headers, key_frame, time } = places;
        let mut columns = Vec::with_capacity(cells.len());
        for name in cells {
            let header = name.strip_prefix("iso:");
            let read = match header {
                Some(header) => Some(Read::of_header(header, binary)?),
                None if name.is_empty() => None,
                None => Some(Read::named(name, binary)?),
            };
            columns.push(Column { read, required: read.is_some(), null_header: header.is_some() });
        }
        let roles: Vec<usize> = [id, key, event_type, payload].into_iter().chain(topic.iter().copied()).collect();
        let optional = headers.iter().copied().chain(time.map(|(place, _)| place));
        for place in optional {
            columns.get_mut(place)?.required = roles.contains(&place);
        }
        // What is text elsewhere is read there; the type and the topic's cells are known byte for byte.
        let read = [id, event_type, payload];
        let is_read = |place: &usize| read.contains(place) || topic.contains(place) || headers.contains(place);
        let checked = (0..columns.len())
            .filter(|place| columns.get(*place).is_some_and(|column| column.required) && !is_read(place));
        let checked = checked.collect();
        let layout = Self {
            relation,
            binary,
            columns,
            id,
            key,
            event_type,
            payload,
            topic,
            headers,
            tombstones,
            key_frame,
            time,
            checked,
            message: None,
        };
        layout.is_plain(&roles).then_some(layout)
    }

    /// The same for messages. `None` when they lack what is required, or a place lies outside of the row.
    #[must_use]
    pub fn of_messages(self, message: Message) -> Option<Self> {
        let places = message.places();
        let is_there = |(place, column): (usize, &Column)| !column.required || places.contains(&place);
        let fits =
            self.columns.iter().enumerate().all(is_there) && places.iter().all(|place| *place < self.columns.len());
        (fits && !self.binary).then_some(Self { message: Some(message), ..self })
    }

    /// Whether payloads are bytes of any kind, no text.
    #[must_use]
    pub fn has_bytea(&self) -> bool {
        self.columns.get(self.payload).is_some_and(|column| column.read == Some(Read::Bytea))
    }

    fn is_plain(&self, roles: &[usize]) -> bool {
        let read = |place: usize| self.columns.get(place).and_then(|column| column.read);
        let fitting = matches!(read(self.payload), Some(Read::Text | Read::Jsonb | Read::Bytea));
        let mut places = roles.iter().chain(&self.headers).filter(|place| **place != self.payload);
        let readable = places.all(|place| read(*place).is_some_and(|read| read != Read::Bytea));
        let twice = self.has_bytea() && [self.id, self.key, self.event_type].contains(&self.payload);
        fitting && readable && !twice
    }
}
