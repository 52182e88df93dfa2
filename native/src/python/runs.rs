//! Runs of plain frames to records.

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use super::records::{Parts, Records, Shared};
use super::routes::{Route, Routes, write_cell};
use crate::encode::Encoder;
use crate::frames::{self, Span, cell};
use crate::keys::Frame;
use crate::layout::{Layout, Places};
use crate::messages::{Member, Message, Value};
use crate::moments::RecordTime;
use crate::values::{self, Read};

/// `cdc.records.fastpath.layout.Layout`.
#[derive(FromPyObject)]
struct Given {
    relation: u32,
    binary: bool,
    cells: Vec<String>,
    id: usize,
    key: usize,
    #[pyo3(attribute("type"))]
    event_type: usize,
    payload: usize,
    topic: Vec<usize>,
    headers: Vec<(String, usize)>,
    tombstones: bool,
    key_frame: (Vec<u8>, Vec<u8>, bool),
    time: (String, usize),
    members: Option<Members>,
    prefix: Vec<u8>,
}

type Named = Vec<(Vec<u8>, i64)>;

/// `cdc.outbox.messages.Members`.
#[derive(FromPyObject)]
struct Members {
    outer: Named,
    given: Named,
}

impl Members {
    fn message(self, prefix: Vec<u8>) -> Message {
        let given = members(self.given, &[]);
        Message { prefix: prefix.into(), members: members(self.outer, &given) }
    }
}

fn members(named: Named, given: &[Member]) -> Vec<Member> {
    let of_place = |place: i64| usize::try_from(place).map_or_else(|_| Value::Given(given.to_vec()), Value::Cell);
    named.into_iter().map(|(name, place)| Member { name: name.into(), value: of_place(place) }).collect()
}

/// Takes runs of plain frames of one table, and stops before the first that is not.
#[pyclass(module = "cdc_native")]
pub(super) struct Runs {
    layout: Option<Layout>,
    records: Records,
    routes: Routes,
    buffers: Buffers,
}

/// Kept from frame to frame.
#[derive(Default)]
struct Buffers {
    encoder: Encoder,
    cells: Vec<Span>,
    key: Vec<u8>,
    text: Vec<u8>,
    framed: Vec<u8>,
    position: String,
}

#[pymethods]
impl Runs {
    #[new]
    #[pyo3(signature = (layout, /))]
    fn new(layout: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = layout.py();
        let given: Given = layout.extract()?;
        let read_time = RecordTime::named(&given.time.0);
        let is_known = given.time.0.is_empty() || read_time.is_some();
        let (before, after, is_string) = given.key_frame;
        let (names, headers): (Vec<String>, Vec<usize>) = given.headers.into_iter().unzip();
        let places = Places {
            id: given.id,
            key: given.key,
            event_type: given.event_type,
            payload: given.payload,
            topic: given.topic,
            headers,
            key_frame: Frame { before, after, is_string },
            time: read_time.map(|read| (given.time.1, read)),
        };
        let of_rows = Layout::new(given.relation, given.binary, &given.cells, places, given.tombstones);
        let layout = match given.members {
            None => of_rows,
            Some(members) => of_rows.and_then(|rows| rows.of_messages(members.message(given.prefix))),
        };
        Ok(Self {
            layout: layout.filter(|_| is_known),
            records: Records::new(py, &names)?,
            routes: Routes::default(),
            buffers: Buffers::default(),
        })
    }

    /// Where rows go of which the type's cell and the topic's cells have these bytes; how large their records may be.
    #[pyo3(signature = (event_type, topic_cells, route, room, /))]
    fn learn(
        &mut self,
        event_type: &Bound<'_, PyBytes>,
        topic_cells: &Bound<'_, PyTuple>,
        route: &Bound<'_, PyAny>,
        room: i64,
    ) -> PyResult<()> {
        let mut key = Vec::new();
        write_cell(&mut key, event_type.as_bytes());
        for cell in topic_cells {
            write_cell(&mut key, cell.cast::<PyBytes>()?.as_bytes());
        }
        self.routes.learn(&key, route, room)
    }

    /// Drops what was learned.
    fn forget(&mut self) {
        self.routes.forget();
    }

    /// A record for each of `frames[at:]`, as far as they are plain.
    #[pyo3(signature = (frames, at, prefix, index, timestamp, report, /))]
    #[expect(clippy::too_many_arguments, reason = "a tuple of them would be made for each call")]
    fn take<'py>(
        &mut self,
        py: Python<'py>,
        frames: &Bound<'py, PyList>,
        at: usize,
        prefix: &str,
        index: u64,
        timestamp: Bound<'py, PyAny>,
        report: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyList>> {
        let shared = Shared { timestamp, report };
        let taken = PyList::empty(py);
        for (index, place) in (index..).zip(at..) {
            let Ok(frame) = frames.get_item(place) else {
                break;
            };
            let Ok(frame) = frame.cast::<PyBytes>() else {
                break;
            };
            let Some(record) = self.record(py, frame.as_bytes(), prefix, index, &shared)? else {
                break;
            };
            taken.append(record)?;
        }
        Ok(taken)
    }
}

impl Runs {
    fn record<'py>(
        &mut self,
        py: Python<'py>,
        frame: &[u8],
        prefix: &str,
        index: u64,
        shared: &Shared<'py>,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let Some(layout) = &self.layout else {
            return Ok(None);
        };
        let buffers = &mut self.buffers;
        let Some(route) = route(layout, &self.routes, frame, buffers) else {
            return Ok(None);
        };
        let Some(key) = key(py, layout, frame, buffers) else {
            return Ok(None);
        };
        let Some(id) = text(py, layout, frame, layout.id, buffers) else {
            return Ok(None);
        };
        let mut more = Vec::new();
        for (number, &place) in layout.headers.iter().enumerate() {
            if buffers.cells.get(place).is_none_or(Option::is_none) {
                if layout.columns.get(place).is_some_and(|column| column.null_header) {
                    more.extend(self.records.header(py, number, None)?);
                }
                continue;
            }
            let Some(text) = read(layout, frame, place, &buffers.cells, &mut buffers.text) else {
                return Ok(None);
            };
            more.extend(self.records.header(py, number, Some(text))?);
        }
        let Some(timestamp) = timestamp(py, layout, frame, &buffers.cells, shared) else {
            return Ok(None);
        };
        let made = if layout.key_frame.is_bare() { 0 } else { key.as_bytes().len() };
        let Some(limit) = route.room.checked_sub(frame.len().saturating_mul(4).saturating_add(made)) else {
            return Ok(None);
        };
        let Some(value) = value(py, layout, route, frame, buffers, limit)? else {
            return Ok(None);
        };
        buffers.position.clear();
        buffers.position.push_str(prefix);
        values::write_index(&mut buffers.position, index);
        let position = PyString::new(py, &buffers.position);
        self.records.make(py, route, &Parts { id, key, value, position, timestamp }, &more, shared).map(Some)
    }
}

/// The route of a frame's row, of which everything that is required is there and can be read.
fn route<'a>(layout: &Layout, routes: &'a Routes, frame: &[u8], buffers: &mut Buffers) -> Option<&'a Route> {
    frames::split(frame, layout, &mut buffers.cells)?;
    buffers.key.clear();
    write_cell(&mut buffers.key, cell(frame, &buffers.cells, layout.event_type)?);
    for &place in &layout.topic {
        write_cell(&mut buffers.key, cell(frame, &buffers.cells, place)?);
    }
    for &place in &layout.checked {
        read(layout, frame, place, &buffers.cells, &mut buffers.text)?;
    }
    routes.get(&buffers.key)
}

fn read<'a>(
    layout: &Layout,
    frame: &'a [u8],
    place: usize,
    cells: &[Span],
    scratch: &'a mut Vec<u8>,
) -> Option<&'a str> {
    layout.columns.get(place)?.read?.text(cell(frame, cells, place)?, scratch)
}

fn text<'py>(
    py: Python<'py>,
    layout: &Layout,
    frame: &[u8],
    place: usize,
    buffers: &mut Buffers,
) -> Option<Bound<'py, PyString>> {
    read(layout, frame, place, &buffers.cells, &mut buffers.text).map(|text| PyString::new(py, text))
}

fn key<'py>(py: Python<'py>, layout: &Layout, frame: &[u8], buffers: &mut Buffers) -> Option<Bound<'py, PyBytes>> {
    let text = read(layout, frame, layout.key, &buffers.cells, &mut buffers.text)?;
    if layout.key_frame.is_bare() {
        return Some(PyBytes::new(py, text.as_bytes()));
    }
    layout.key_frame.write(text, &mut buffers.framed);
    Some(PyBytes::new(py, &buffers.framed))
}

/// The record's time: that of its column, or where that is null the commit's.
fn timestamp<'py>(
    py: Python<'py>,
    layout: &Layout,
    frame: &[u8],
    cells: &[Span],
    shared: &Shared<'py>,
) -> Option<Bound<'py, PyAny>> {
    let own = layout.time.and_then(|(place, read)| cell(frame, cells, place).map(|cell| (cell, read)));
    match own {
        None => Some(shared.timestamp.clone()),
        Some((cell, read)) => read.milliseconds(cell)?.into_pyobject(py).ok().map(Bound::into_any),
    }
}

/// The record's value; None when it is declined, or would be longer than `limit`.
fn value<'py>(
    py: Python<'py>,
    layout: &Layout,
    route: &Route,
    frame: &[u8],
    buffers: &mut Buffers,
    limit: usize,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let Some(payload) = payload(layout, frame, &buffers.cells, &mut buffers.text) else {
        return Ok(None);
    };
    if layout.tombstones && payload.iter().all(|byte| byte.is_ascii_whitespace() || *byte == 0x0B) {
        return Ok(None);
    }
    if layout.has_bytea() {
        let value = [&route.header_bytes, payload].concat();
        return Ok((value.len() <= limit).then(|| PyBytes::new(py, &value)));
    }
    if let Some(plan) = &route.plan
        && let Some(value) = buffers.encoder.encode(plan, &route.header_bytes, payload, limit)
    {
        return Ok(Some(PyBytes::new(py, value)));
    }
    Ok(in_python(py, route, payload)?.filter(|value| value.as_bytes().len() <= limit))
}

fn payload<'a>(layout: &Layout, frame: &'a [u8], cells: &[Span], scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    let payload = cell(frame, cells, layout.payload)?;
    match layout.columns.get(layout.payload)?.read? {
        Read::Text => Some(payload),
        Read::Jsonb => values::jsonb(payload),
        Read::Bytea if layout.binary => Some(payload),
        Read::Bytea => {
            values::bytea_from_text(payload, scratch)?;
            Some(scratch)
        }
        _ => None,
    }
}

/// What Python's encoder makes of a payload that the plan declines; None when it refuses.
fn in_python<'py>(py: Python<'py>, route: &Route, payload: &[u8]) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let Some(encode) = &route.encode else {
        return Ok(None);
    };
    match encode.bind(py).call1((PyBytes::new(py, payload), route.header.bind(py))) {
        Ok(value) => Ok(value.cast_into::<PyBytes>().ok()),
        Err(error) if error.is_instance_of::<PyException>(py) => Ok(None),
        Err(error) => Err(error),
    }
}
