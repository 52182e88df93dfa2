//! Kafka records as a sink takes them: tuples of the parts of `cdc.records.encoding.Record`.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyList, PyString, PyTuple};

use super::routes::Route;

/// Makes the records of a table.
pub(super) struct Records {
    partition: Py<PyInt>,
    headers: Vec<Py<PyString>>,
}

/// What all records of one call share.
pub(super) struct Shared<'py> {
    pub(super) timestamp: Bound<'py, PyAny>,
    pub(super) report: Bound<'py, PyAny>,
}

/// What a record has of its own.
pub(super) struct Parts<'py> {
    pub(super) id: Bound<'py, PyString>,
    pub(super) key: Bound<'py, PyBytes>,
    pub(super) value: Bound<'py, PyBytes>,
    pub(super) position: Bound<'py, PyString>,
    pub(super) timestamp: Bound<'py, PyAny>,
}

impl Records {
    pub(super) fn new(py: Python<'_>, headers: &[String]) -> PyResult<Self> {
        Ok(Self {
            partition: (-1_i64).into_pyobject(py)?.unbind(),
            headers: headers.iter().map(|name| PyString::intern(py, name).unbind()).collect(),
        })
    }

    /// The pair of a further header, with None when there is no text.
    pub(super) fn header<'py>(
        &self,
        py: Python<'py>,
        number: usize,
        text: Option<&str>,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let Some(name) = self.headers.get(number) else {
            return Ok(None);
        };
        let Some(text) = text else {
            return PyTuple::new(py, [name.bind(py).as_any(), py.None().bind(py)]).map(Some);
        };
        pair(py, name.bind(py), &PyString::new(py, text)).map(Some)
    }

    /// The record; `more` are the pairs of further headers.
    pub(super) fn make<'py>(
        &self,
        py: Python<'py>,
        route: &Route,
        parts: &Parts<'py>,
        more: &[Bound<'py, PyTuple>],
        shared: &Shared<'py>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let id = pair(py, intern!(py, "id"), &parts.id)?;
        let position = pair(py, intern!(py, "cdc-position"), &parts.position)?;
        let headers = if more.is_empty() && route.headers.is_empty() {
            PyList::new(py, [&id, route.event_type.bind(py), &position])?
        } else {
            let mut all = Vec::with_capacity(3 + route.headers.len() + more.len());
            all.extend([&id, route.event_type.bind(py), &position]);
            all.extend(route.headers.iter().map(|pair| pair.bind(py)));
            all.extend(more);
            PyList::new(py, all)?
        };
        let nothing = py.None().into_bound(py);
        PyTuple::new(
            py,
            [
                route.topic.bind(py).as_any(),
                parts.value.as_any(),
                parts.key.as_any(),
                self.partition.bind(py).as_any(),
                &shared.report,
                &nothing,
                &parts.timestamp,
                headers.as_any(),
            ],
        )
    }
}

fn pair<'py>(
    py: Python<'py>,
    name: &Bound<'py, PyString>,
    text: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, [name, text])
}
