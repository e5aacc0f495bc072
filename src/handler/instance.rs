//! One instance: a store with an initialized handler in it, and the calls it answers.
//!
//! A call ends in one of two ways. If the guest returned a value or an error, the instance can be used again. If a trap
//! or a limit ended the call, or its future was dropped, it cannot: wasmtime refuses to enter that store again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::Store;
use wasmtime::component::TypedFunc;

use crate::error::{Error, Kind};
use crate::payload::{Body, Meter, Request, Response};
use crate::tensor::NamedTensor;

use super::bindings::lantern::handler::types;
use super::bindings::{self, exports::lantern::handler::pipeline};
use super::context;
use super::cpu_meter::CpuMeter;
use super::fault::{self, Circumstances, Function};
use super::host::Host;
use super::load::Linked;
use super::lower::{self, Role, Shapes};
use super::output::{self, ResponseRules};
use super::{Level, Step, Version};

/// Most handles of host resources that an instance may hold.
const HANDLES_LIMIT: usize = 4096;

/// An instance is replaced after this many calls and a random number more, so that instances that started together are
/// not replaced together.
const CALLS_AT_LEAST: u32 = 5_000;
const CALLS_SPREAD: u32 = 5_000;

/// Bytes by which an instance may grow before it is not kept for long.
const GROWN: usize = 1 << 20;

/// The guest's function `describe`.
type Describe = TypedFunc<(), (Result<String, types::Error>,)>;

/// A store with an initialized handler in it.
pub(super) struct Instance {
    store: Store<Host>,
    guest: bindings::Handler,
    /// The export `describe`, if the component has it.
    describe: Option<Describe>,
    meter: Arc<CpuMeter>,
    calls: u32,
    /// Calls after which it is replaced.
    calls_limit: u32,
    /// Bytes of memory that it held after `init`.
    initial_memory: usize,
    is_dead: bool,
}

impl Instance {
    /// Instantiates the component and runs `init`.
    pub async fn start(version: &Version) -> Result<Self, Error> {
        let mut store = store(version);
        let meter = Arc::clone(&store.data().meter);
        begin(&mut store, &meter, "", version.host.limits.init_cpu);
        let linked = &version.component;
        let instance = linked.instance.instantiate_async(&mut store);
        let instance = meter.run(&version.engine.ticker, instance).await;
        let exports = instance.and_then(|instance| exports(&mut store, linked, &instance));
        let (guest, describe) = match exports {
            Ok(exports) => exports,
            Err(error) => return Err(fault(&mut store, Function::Init, &error)),
        };
        let mut instance = Self {
            store,
            guest,
            describe,
            meter,
            calls: 0,
            calls_limit: calls_limit()?,
            initial_memory: 0,
            is_dead: false,
        };
        instance.init(version).await?;
        instance.initial_memory = instance.store.data().limiter.used();
        Ok(instance)
    }

    /// Whether it may be given another call.
    pub fn is_usable(&self) -> bool {
        !self.is_dead && self.calls < self.calls_limit && !self.holds_too_much()
    }

    /// Runs `preprocess`.
    pub async fn preprocess(
        &mut self,
        version: &Version,
        request: &Request,
    ) -> Result<Step, Error> {
        let limits = &version.host.limits;
        let meter = &request.meter;
        self.begin(&request.id, limits.cpu);
        let headers = lower::headers(&request.headers);
        let parts = lower::parts(&request.body);
        let tensors = match &request.body {
            Body::Tensors(tensors) => tensors.as_slice(),
            Body::Raw(_) | Body::Form(_) => &[],
        };
        let shapes = Shapes::of(tensors, Role::Input)?;
        let table = &mut self.store.data_mut().tensors;
        let tensors = lower::tensors(tensors, Role::Input, &shapes, table)?;
        let request = lower::request(request, &headers, &parts, &tensors);
        let pipeline = self.guest.lantern_handler_pipeline();
        let call = pipeline.call_preprocess(&mut self.store, request);
        let answer = self.meter.run(&version.engine.ticker, call).await;
        meter.add_handler(self.meter.used());
        let step = self.answer(Function::Preprocess, answer)?;
        let rules = response_rules(version);
        let step = step.and_then(|step| self.step(step, rules));
        self.store.data_mut().end(false);
        step
    }

    /// Runs `postprocess`.
    pub async fn postprocess(
        &mut self,
        version: &Version,
        (request_id, meter): (&str, &Meter),
        outputs: &[NamedTensor],
        carry: &Bytes,
    ) -> Result<Response, Error> {
        let limits = &version.host.limits;
        self.begin(request_id, limits.cpu);
        let shapes = Shapes::of(outputs, Role::Output)?;
        let table = &mut self.store.data_mut().tensors;
        let outputs = lower::tensors(outputs, Role::Output, &shapes, table)?;
        let pipeline = self.guest.lantern_handler_pipeline();
        let call = pipeline.call_postprocess(&mut self.store, &outputs, carry);
        let answer = self.meter.run(&version.engine.ticker, call).await;
        meter.add_handler(self.meter.used());
        let response = self.answer(Function::Postprocess, answer)?;
        self.store.data_mut().end(false);
        output::response(response?, Function::Postprocess, response_rules(version))
    }

    /// Runs `describe`, which the component exports.
    pub async fn describe(&mut self, version: &Version, request_id: &str) -> Result<String, Error> {
        let limits = &version.host.limits;
        self.begin(request_id, limits.cpu);
        let describe = self.describe.ok_or_else(|| {
            Error::new(Kind::Internal, "The handler exports no describe any more")
        })?;
        let call = describe.call_async(&mut self.store, ());
        let answer = self.meter.run(&version.engine.ticker, call).await;
        let text = self.answer(Function::Describe, answer.map(|(answer,)| answer))?;
        self.store.data_mut().end(false);
        output::description(text?, limits.response)
    }

    /// Calls made so far; `init` is the first.
    #[cfg(test)]
    pub fn calls(&self) -> u32 {
        self.calls
    }

    /// Makes this the last call.
    #[cfg(test)]
    pub fn wear_out(&mut self) {
        self.calls_limit = 0;
    }

    async fn init(&mut self, version: &Version) -> Result<(), Error> {
        self.begin("", version.host.limits.init_cpu);
        let properties = context::properties(&version.model);
        let context = context::context(&version.model, version.device, &properties);
        let pipeline = self.guest.lantern_handler_pipeline();
        let call = pipeline.call_init(&mut self.store, context);
        let answer = self.meter.run(&version.engine.ticker, call).await;
        let initialized = self.answer(Function::Init, answer)?;
        self.store.data_mut().end(initialized.is_err());
        initialized.map_err(|error| {
            let text = format!("The handler failed in init: {}", error.message());
            Error::new(Kind::LoadFailed, text)
        })
    }

    fn begin(&mut self, request_id: &str, cpu: Duration) {
        begin(&mut self.store, &self.meter, request_id, cpu);
    }

    /// The outer result is an error if the call ended by a fault, the inner one if the guest returned an error.
    fn answer<T>(
        &mut self,
        function: Function,
        answer: wasmtime::Result<Result<T, types::Error>>,
    ) -> Result<Result<T, Error>, Error> {
        self.calls += 1;
        match answer {
            Ok(answer) => Ok(answer.map_err(|error| output::failure(&error))),
            Err(error) => {
                self.is_dead = true;
                Err(fault(&mut self.store, function, &error))
            }
        }
    }

    fn step(&mut self, step: pipeline::Step, rules: ResponseRules<'_>) -> Result<Step, Error> {
        output::step(step, &mut self.store.data_mut().tensors, rules)
    }

    /// Whether its memory has grown by so much since `init` that it is not kept for long.
    pub fn has_grown(&self) -> bool {
        self.store.data().limiter.used() > self.initial_memory + GROWN
    }

    /// Whether it is so close to its memory limit that later calls would fail: linear memory never shrinks. An instance
    /// that is no larger than after `init` is kept, since a new one would be as large.
    fn holds_too_much(&self) -> bool {
        let limiter = &self.store.data().limiter;
        let used = limiter.used();
        used > limiter.limit() / 4 * 3 && used > self.initial_memory
    }
}

/// The guest's functions. Fails if `describe` has another type than the interface says.
fn exports(
    store: &mut Store<Host>,
    linked: &Linked,
    instance: &wasmtime::component::Instance,
) -> wasmtime::Result<(bindings::Handler, Option<Describe>)> {
    let guest = linked.pipeline.load(&mut *store, instance)?;
    let describe = linked.describe.as_ref();
    let describe = describe.map(|index| instance.get_typed_func(&mut *store, index));
    Ok((guest, describe.transpose()?))
}

/// What responses of the version's handler may have.
fn response_rules(version: &Version) -> ResponseRules<'_> {
    ResponseRules {
        body_limit: version.host.limits.response,
        headers: &version.model.settings.handler_headers,
    }
}

fn store(version: &Version) -> Store<Host> {
    let host = Host::new(Arc::clone(&version.host));
    let mut store = Store::new(&version.engine.engine, host);
    store.limiter(|host| &mut host.limiter);
    store.set_hostcall_fuel(version.host.limits.output);
    store.set_max_component_handles(HANDLES_LIMIT);
    let meter = Arc::clone(&store.data().meter);
    store.epoch_deadline_callback(move |_| meter.at_tick());
    store
}

fn begin(store: &mut Store<Host>, meter: &CpuMeter, request_id: &str, cpu: Duration) {
    meter.reset(cpu);
    store.set_epoch_deadline(1);
    store.data_mut().begin(request_id);
}

/// Writes the whole fault to the model's log, and returns what the client may know of it.
fn fault(store: &mut Store<Host>, function: Function, error: &wasmtime::Error) -> Error {
    let host = store.data_mut();
    let fault = fault::classify(
        error,
        Circumstances {
            function,
            limits: &host.shared.limits,
            was_refused_memory: host.limiter.has_refused(),
            ran_out_of_memory: host.limiter.has_run_out(),
            stderr: &host.stderr.text(),
        },
    );
    host.end(true);
    host.log(Level::Error, &fault.to_string(), Vec::new());
    fault
}

fn calls_limit() -> Result<u32, Error> {
    let random = getrandom::u32().map_err(|error| {
        Error::new(Kind::Internal, "The system gives no random numbers").with_detail(error)
    })?;
    Ok(CALLS_AT_LEAST + random % CALLS_SPREAD)
}
