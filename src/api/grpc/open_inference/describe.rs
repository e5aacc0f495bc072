//! What server and models say of themselves, as messages.

use super::wire;
use super::wire::model_config::SchedulingChoice;
use super::wire::model_metadata_response::TensorMetadata;
use super::wire::model_version_policy::{All, PolicyChoice};
use super::wire::repository_index_response;
use crate::api::oip::{config, metadata, repository, statistics};

pub(super) fn server(server: &metadata::ServerMetadata) -> wire::ServerMetadataResponse {
    wire::ServerMetadataResponse {
        name: server.name.to_owned(),
        version: server.version.to_owned(),
        extensions: server.extensions.iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn model(model: metadata::ModelMetadata) -> wire::ModelMetadataResponse {
    wire::ModelMetadataResponse {
        name: model.name,
        versions: model.versions,
        platform: model.platform.to_owned(),
        inputs: model.inputs.into_iter().map(tensor).collect(),
        outputs: model.outputs.into_iter().map(tensor).collect(),
        properties: std::collections::HashMap::new(),
    }
}

fn tensor(tensor: metadata::TensorMetadata) -> TensorMetadata {
    TensorMetadata {
        name: tensor.name,
        datatype: tensor.datatype.to_owned(),
        shape: tensor.shape,
    }
}

pub(super) fn config(config: config::ModelConfig) -> wire::ModelConfigResponse {
    let batching = config.dynamic_batching.map(batching);
    let config = wire::ModelConfig {
        name: config.name,
        platform: config.platform.to_owned(),
        backend: config.backend.to_owned(),
        version_policy: Some(wire::ModelVersionPolicy {
            policy_choice: Some(PolicyChoice::All(All {})),
        }),
        max_batch_size: int(config.max_batch_size),
        input: config.input.into_iter().map(input).collect(),
        output: config.output.into_iter().map(output).collect(),
        instance_group: config.instance_group.into_iter().map(group).collect(),
        scheduling_choice: batching.map(SchedulingChoice::DynamicBatching),
        ..wire::ModelConfig::default()
    };
    wire::ModelConfigResponse {
        config: Some(config),
    }
}

fn input(input: config::TensorConfig) -> wire::ModelInput {
    wire::ModelInput {
        data_type: data_type(input.data_type),
        name: input.name,
        dims: input.dims,
        optional: input.optional,
        ..wire::ModelInput::default()
    }
}

fn output(output: config::TensorConfig) -> wire::ModelOutput {
    wire::ModelOutput {
        data_type: data_type(output.data_type),
        name: output.name,
        dims: output.dims,
        ..wire::ModelOutput::default()
    }
}

fn data_type(name: &str) -> i32 {
    wire::DataType::from_str_name(name)
        .unwrap_or_default()
        .into()
}

fn group(group: config::InstanceGroup) -> wire::ModelInstanceGroup {
    let kind = wire::model_instance_group::Kind::from_str_name(group.kind);
    wire::ModelInstanceGroup {
        name: group.name,
        count: int(group.count),
        gpus: group
            .gpus
            .into_iter()
            .map(|gpu| i32::try_from(gpu).unwrap_or(i32::MAX))
            .collect(),
        kind: kind.unwrap_or_default().into(),
    }
}

fn batching(batching: config::DynamicBatching) -> wire::ModelDynamicBatching {
    wire::ModelDynamicBatching {
        preferred_batch_size: batching.preferred_batch_size.into_iter().map(int).collect(),
        max_queue_delay_microseconds: batching.max_queue_delay_microseconds,
        preserve_ordering: false,
        priority_levels: batching.priority_levels,
        default_priority_level: batching.default_priority_level,
    }
}

fn int(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

pub(super) fn statistics(all: statistics::AllStatistics) -> wire::ModelStatisticsResponse {
    wire::ModelStatisticsResponse {
        model_stats: all.model_stats.into_iter().map(of_model).collect(),
    }
}

fn of_model(model: statistics::ModelStatistics) -> wire::ModelStatistics {
    let of_requests = &model.inference_stats;
    wire::ModelStatistics {
        name: model.name,
        version: model.version,
        last_inference: model.last_inference,
        inference_count: model.inference_count,
        execution_count: model.execution_count,
        inference_stats: Some(wire::InferStatistics {
            success: duration(of_requests.success),
            fail: duration(of_requests.fail),
            queue: duration(of_requests.queue),
            compute_input: duration(of_requests.compute_input),
            compute_infer: duration(of_requests.compute_infer),
            compute_output: duration(of_requests.compute_output),
            cache_hit: duration(of_requests.cache_hit),
            cache_miss: duration(of_requests.cache_miss),
        }),
        batch_stats: model.batch_stats.into_iter().map(of_batch).collect(),
    }
}

fn of_batch(batch: statistics::BatchOfSize) -> wire::InferBatchStatistics {
    wire::InferBatchStatistics {
        batch_size: batch.batch_size,
        compute_input: duration(batch.compute_input),
        compute_infer: duration(batch.compute_infer),
        compute_output: duration(batch.compute_output),
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "messages in messages are optional"
)]
fn duration(duration: statistics::StatisticDuration) -> Option<wire::StatisticDuration> {
    Some(wire::StatisticDuration {
        count: duration.count,
        ns: duration.ns,
    })
}

pub(super) fn index(index: Vec<repository::ModelIndex>) -> wire::RepositoryIndexResponse {
    let models = index
        .into_iter()
        .map(|one| repository_index_response::ModelIndex {
            name: one.name,
            version: one.version.unwrap_or_default(),
            state: one.state.to_owned(),
            reason: one.reason,
        });
    wire::RepositoryIndexResponse {
        models: models.collect(),
    }
}
