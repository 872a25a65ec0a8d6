//! One pass over the filters: each sees what those before it wrote.

use weir_engine::core::effects::{Effects, HeaderEdit};
use weir_engine::core::headers::HeaderMap;
use weir_engine::core::restore::NOTE;
use weir_host::{Filter, HostPorts};

pub struct Pass<'a> {
    headers: &'a mut HeaderMap,
    is_request: bool,
    ports: &'a mut HostPorts,
    /// Of all filters so far, but for the edits of a request's headers: the ports show them.
    effects: Effects,
}

impl<'a> Pass<'a> {
    pub fn of_request(headers: &'a mut HeaderMap, ports: &'a mut HostPorts) -> Pass<'a> {
        Pass { is_request: true, ..Pass::of_response(headers, ports) }
    }

    pub fn of_response(headers: &'a mut HeaderMap, ports: &'a mut HostPorts) -> Pass<'a> {
        ports.remember();
        Pass { headers, is_request: false, ports, effects: Effects::default() }
    }

    /// Asks a filter, unless one before it has answered or waits for an answer.
    pub fn request<F: Filter>(
        &mut self,
        filter: &mut F,
        worker: &mut F::Worker,
    ) -> Option<F::Stream> {
        if self.effects.reply.is_some() || self.effects.waits_for.is_some() {
            return None;
        }
        let (effects, stream) = filter.on_request(worker, self.headers, self.ports);
        self.take(F::NAME, effects);
        stream
    }

    /// Asks a filter again whose call has been answered.
    pub fn resume<F: Filter>(
        &mut self,
        filter: &mut F,
        stream: Option<F::Stream>,
        worker: &mut F::Worker,
    ) -> Option<F::Stream> {
        let (effects, stream) = filter.resume(stream, worker, self.headers, self.ports);
        self.take(F::NAME, effects);
        stream
    }

    /// The same on the way back.
    pub fn response<F: Filter>(&mut self, stream: &mut Option<F::Stream>, worker: &mut F::Worker) {
        let Some(found) = stream.as_mut().filter(|_| self.effects.reply.is_none()) else { return };
        let effects = F::on_response(found, worker, self.headers, self.ports);
        if !F::KEEPS_STREAMS {
            *stream = None;
        }
        self.take(F::NAME, effects);
    }

    pub fn end(mut self) -> Effects {
        if let Some(edits) = self.ports.edits().filter(|_| self.is_request) {
            self.effects.headers = std::mem::take(edits);
        }
        self.ports.forget();
        self.effects
    }

    fn take(&mut self, name: &str, effects: Effects) {
        if let Some(state) = &effects.state {
            self.ports.set_state(name, state);
        }
        if let Some(note) = &effects.note {
            // The filters that it is for are in here.
            self.ports.pretend(NOTE.as_bytes(), Some(note.write()));
        }
        self.headers.edit(&effects.headers);
        let edits = match self.ports.edits() {
            Some(edits) if self.is_request => edits,
            _ => &mut self.effects.headers,
        };
        effects.headers.into_iter().for_each(|edit| push(edit, edits));
        self.effects.reply = effects.reply;
        self.effects.waits_for = effects.waits_for;
        self.effects.is_charged |= effects.is_charged;
    }
}

/// What a later filter writes makes an earlier edit of the same lines superfluous. An earlier removal
/// stays: it takes lines that a `Set` would leave.
fn push(edit: HeaderEdit, edits: &mut Vec<HeaderEdit>) {
    match &edit {
        HeaderEdit::Set(name, _) => edits.retain(|earlier| match earlier {
            HeaderEdit::Set(other, _) | HeaderEdit::Add(other, _) => other != name,
            HeaderEdit::Remove(_) => true,
        }),
        HeaderEdit::Remove(name) => edits.retain(|earlier| match earlier {
            HeaderEdit::Set(other, _) | HeaderEdit::Add(other, _) | HeaderEdit::Remove(other) => {
                other != name
            }
        }),
        HeaderEdit::Add(..) => {}
    }
    edits.push(edit);
}
