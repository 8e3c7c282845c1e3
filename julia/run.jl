# What a fit gives.

"""
    Run

What [`train`](@ref) returns.

# Fields
- `variant::Variant`
- `model::Chain`: with the kept weights.
- `history::Vector{NamedTuple}`: a row per finished epoch: `epoch`, `seconds`, and `train_…` and `validation_…` `loss`,
  `penalty`, `total`, `accuracy`.
- `kept_epoch::Int`: the epoch whose weights the model has; 0 if none was finished.
- `ended::Symbol`: `:epochs`, `:early_stopping`, `:stopped` (by a callback or `max_time`) or `:interrupted`; of a run that Python wrote, also `:diverged`, or
  `:adopted`: imported from Keras.
- `input::NTuple{3,Int}`: width, height and channels of its images; of a fit to features without their images 1, 1 and how many.
- `classes::Vector{String}`
- `settings::NamedTuple`: `epochs`, `batch_size`, `learning_rate`, `seed`, `balance`, `on_nonfinite`, `schedule`; and if it was not trained on the CPU
  `device` and `tf32`.
- `data::NamedTuple`: `name` and `fingerprint` of the prepared dataset, and what else is known of it: `path`, `seed` of its
  split, `images`, `positive`, `groups`, `made_from`.
- `initial::Union{Nothing,NamedTuple}`: where the first weights came from, the `path` of a run or file (`nothing`: a run
  in memory) and the `fingerprint` of its weights ([`fingerprint`](@ref)); `nothing`: drawn from the seed.
- `seen`: which images the weights have seen; [`evaluate`](@ref) does not score them as new ones.
- `backbone::Union{Nothing,PhotoFlux.RunBackbone}`: what makes features of its images, on which the model is; `nothing`: the model
  takes them as they are.
- `notes::Vector{String}`: what a user should know of the fit, such as a learning rate that was halved.
"""
struct Run
    variant::Variant
    model::Chain
    history::Vector{NamedTuple}
    kept_epoch::Int
    ended::Symbol
    input::NTuple{3,Int}
    classes::Vector{String}
    settings::NamedTuple
    data::NamedTuple
    initial::Union{Nothing,NamedTuple}
    seen::Seen
    backbone::Union{Nothing,RunBackbone}
    notes::Vector{String}
end

layers(run::Run) = layers(run.variant, head_input(run.input, run.backbone), length(run.classes))

function Base.show(io::IO, ::MIME"text/plain", run::Run)
    print(io, "Run of \"", run.variant.name, "\" on ", run.data.name, ": ", length(run.history), " epochs")
    by = run.ended === :stopped ? "a callback" : replace(string(run.ended), '_' => ' ')
    run.ended in (:epochs, :adopted) || print(io, " (ended by ", by, ")")
    run.initial === nothing || print(io, ", from ", something(run.initial.path, "a run in memory"))
    run.backbone === nothing || print(io, "\n  on ", run.backbone.entry["features"], " features by ", run.backbone.entry["name"])
    if run.kept_epoch > 0
        row = run.history[run.kept_epoch]
        print(io, "\n  epoch ", run.kept_epoch, " kept: validation total ", @sprintf("%.4f", row.validation_total))
        print(io, ", accuracy ", @sprintf("%.4f", row.validation_accuracy))
    end
end
