//! What the protocol's routes lead to.

/// What answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// What the server is.
    ServerMetadata,
    /// Whether the server lives.
    Live,
    /// Whether every model serves.
    Ready,
    /// What a model takes and gives.
    ModelMetadata,
    /// Whether a version serves.
    ModelReady,
    /// A model's configuration.
    ModelConfig,
    /// What a model has done.
    ModelStatistics,
    /// What all models have done.
    Statistics,
    /// An inference.
    Infer,
    /// The list of models.
    Index,
    /// Has a model serve.
    Load,
    /// Has a model serve no more.
    Unload,
}

impl Endpoint {
    /// Whether it is about a model that must have been loaded for the answer to be known.
    pub(super) const fn needs_loaded_model(self) -> bool {
        matches!(self, Self::Infer | Self::ModelMetadata | Self::ModelConfig)
    }

    /// The `operationId` in documents.
    pub const fn operation(self) -> &'static str {
        match self {
            Self::ServerMetadata => "oipServerMetadata",
            Self::Live => "oipServerLive",
            Self::Ready => "oipServerReady",
            Self::ModelMetadata => "oipModelMetadata",
            Self::ModelReady => "oipModelReady",
            Self::ModelConfig => "oipModelConfig",
            Self::ModelStatistics => "oipModelStatistics",
            Self::Statistics => "oipStatistics",
            Self::Infer => "oipModelInfer",
            Self::Index => "oipRepositoryIndex",
            Self::Load => "oipRepositoryModelLoad",
            Self::Unload => "oipRepositoryModelUnload",
        }
    }
}
