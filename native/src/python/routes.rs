//! Where the events of one type and topic go, as Python taught it.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::plan::Plan;

const MOST: usize = 10_000; // a topic may hang on a column of many values: what is known must not grow with them

/// `cdc.records.router.Route`, made ready.
pub(super) struct Route {
    pub(super) topic: Py<PyString>,
    pub(super) event_type: Py<PyTuple>,
    pub(super) header: Py<PyBytes>,
    pub(super) header_bytes: Box<[u8]>,
    pub(super) encode: Option<Py<PyAny>>,
    pub(super) plan: Option<Arc<Plan>>,
    pub(super) headers: Vec<Py<PyTuple>>,
    pub(super) room: usize,
}

type Given<'py> = (
    Bound<'py, PyString>,
    Bound<'py, PyString>,
    Bound<'py, PyBytes>,
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyBytes>>,
    Vec<Bound<'py, PyTuple>>,
    bool,
);

/// All routes, by the bytes of the cells that decide.
#[derive(Default)]
pub(super) struct Routes {
    known: HashMap<Box<[u8]>, Route, RandomState>,
    plans: HashMap<Box<[u8]>, Option<Arc<Plan>>, RandomState>,
}

impl Routes {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Route> {
        self.known.get(key)
    }

    pub(super) fn learn(&mut self, key: &[u8], route: &Bound<'_, PyAny>, room: i64) -> PyResult<()> {
        let py = route.py();
        let (topic, name, header, encode, plan, headers, enveloped): Given<'_> = route.extract()?;
        if enveloped {
            return Ok(());
        }
        if self.known.len() >= MOST && !self.known.contains_key(key) {
            self.forget();
        }
        let route = Route {
            topic: topic.unbind(),
            event_type: PyTuple::new(py, [intern!(py, "eventType").as_any(), name.as_any()])?.unbind(),
            header_bytes: header.as_bytes().into(),
            header: header.unbind(),
            encode: encode.map(Bound::unbind),
            plan: plan.and_then(|plan| self.plan(plan.as_bytes())),
            headers: headers.into_iter().map(Bound::unbind).collect(),
            room: usize::try_from(room).unwrap_or(0),
        };
        self.known.insert(key.into(), route);
        Ok(())
    }

    /// Many topics may share a plan.
    fn plan(&mut self, text: &[u8]) -> Option<Arc<Plan>> {
        if let Some(plan) = self.plans.get(text) {
            return plan.clone();
        }
        let plan = Plan::parse(text).map(Arc::new);
        self.plans.insert(text.into(), plan.clone());
        plan
    }

    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.plans.clear();
    }
}

/// Writes one cell so that no two rows of cells have the same key.
pub(super) fn write_cell(key: &mut Vec<u8>, cell: &[u8]) {
    key.extend_from_slice(&cell.len().to_le_bytes());
    key.extend_from_slice(cell);
}
