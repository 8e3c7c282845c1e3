"""
    logits(model, images; batch_size = 32)

Return the logits of images, in batches of bounded memory, with dropout off whatever the state of the model.

# Arguments
- `model::Chain`
- `images::AbstractArray{<:Real,4}`: `W×H×C×N`, 0 to 255.
- `batch_size::Integer`: images at a time, 1 or more.

# Returns
- `Matrix{Float32}`: `outputs×N`.
"""
function logits(model::Chain, images::AbstractArray{<:Real,4}; batch_size::Integer=32)
    return batched_logits(model, images, axes(images, 4), batch_size)
end

# `between` is called after each batch.
function batched_logits(model::Chain, images, numbers, batch_size, between=Returns(nothing))
    batch_size >= 1 || throw(ArgumentError("`batch_size` must be 1 or more; received: $batch_size."))
    chain = inference(model)
    parts = is_on_device(chain) ? device_logits(chain, images, numbers, batch_size) : with_buffers() do buffers
        # The arrays of a batch point into the buffers.
        GC.@preserve buffers images map(Iterators.partition(numbers, batch_size)) do batch
            # Interrupts are handled between two batches: one must not strike while threads are started.
            z = disable_sigint(() -> on_all_threads(() -> logits_of(chain, input_of(images, batch, buffers), buffers), has_step_kernels(chain)))
            between()
            z
        end
    end
    return isempty(parts) ? zeros(Float32, output_count(model, images), 0) : reduce(hcat, parts)::Matrix{Float32}
end

# How many logits it gives; of a network that does not end with a Dense layer by asking it.
output_count(model, images) = last(model.layers) isa Dense ? size(last(model.layers).weight, 1) :
    size(inference(model)(fill!(similar(first(Flux.trainables(model)), size(images)[1:3]..., 1), 0)), 1)

# The layers' own calls are not needed by our models, and compiled only where they are.
logits_of(chain, x, buffers) =
    has_fast_path(chain, x) ? copy(last(run_forward(stages(chain), x, buffers)))::Matrix{Float32} : dispatch_barrier(by_layers, chain, x)
by_layers(chain, x) = convert(Matrix{Float32}, chain(x))

# The images of a batch as the model takes them: as they are if they are all and Float32, else copied by all threads.
function input_of(images::Array{T,4}, batch, buffers) where {T<:Real}
    T === Float32 && batch == axes(images, 4) && return images
    x = buffer(buffers, :input, :images, size(images)[1:3]..., length(batch))
    foreach_job(length(batch)) do i, _
        copyto!(view(x, :, :, :, i), view(images, :, :, :, batch[i]))
    end
    return x
end

input_of(images, batch, buffers) = Float32.(view(images, :, :, :, batch))

"""
    predict(run, images; batch_size = 32, device)

Return the probability of every class for each image.

# Arguments
- `run`: a [`Run`](@ref), or a model of [`build_model`](@ref).
- `images`: `W×H×C×N`, 0 to 255, of the size that the model was built for.
- `batch_size::Integer`: images at a time; it bounds the memory.
- `device`: of a run, as for [`train`](@ref); a model is applied where it is.

# Returns
- `Matrix{Float32}`: `classes×N`, columns that sum to 1.

# Throws
- `DimensionMismatch`: images of another size.
"""
function predict(model::Chain, images::AbstractArray{<:Real,4}; batch_size::Integer=32)
    p = probabilities(logits(model, images; batch_size))
    return size(p, 1) == 1 ? [1 .- p; p] : p
end

"""
    evaluate(run, data; part = :test, batch_size = 32, device)
    evaluate(model, data, variant; part = :test, batch_size = 32)

Measure a model on a part of a prepared dataset, with dropout off.

Of a run's own dataset that is the part that it was trained with. Of another the images are left out that the run has seen in
training or validation, known by their pixels; so are those of its own that the weights had seen from which its fit began.

# Arguments
- `run`: a [`Run`](@ref), or a model and its [`Variant`](@ref).
- `data::PreparedDataset`: or a folder for [`open_dataset`](@ref).
- `part::Symbol`: `:train`, `:validation` or `:test`.
- `batch_size::Integer`: images at a time; it bounds the memory.
- `device`: of a run, as for [`train`](@ref); a model is measured where it is.

# Returns
- `NamedTuple`: `loss` (mean data loss), `penalty`, `total`, `accuracy`; `confusion[i, j]`, the images of class `i`
  with predicted class `j`; `precision` and `recall` of each class (`NaN` where no image has it as predicted, or as true class). Of a run
  also `images`, how many were scored, and `left_out`, how many were not.

# Throws
- `ArgumentError`: the part has no images, or the run has seen all of them; `DimensionMismatch`: images or classes do not fit the model.
"""
function evaluate(model::Chain, data::PreparedDataset, v::Variant; part::Symbol=:test, batch_size::Integer=32)
    chosen = indices(data, part)
    return evaluate_images(model, data, v, part, chosen, batch_size)
end

function evaluate_images(model, data, v, part, chosen, batch_size, between=Returns(nothing))
    isempty(chosen) && throw(ArgumentError("The part :$part of $(data.name) has no images."))
    K = length(data.classes)
    given = output_count(model, data.images)
    given == outputs(K) || throw(DimensionMismatch("$(data.name) has $K classes; the model has $given outputs."))
    z = batched_logits(model, data.images, chosen, batch_size, between)
    labels = data.labels[chosen]
    confusion = zeros(Int, K, K)
    for (truth, decision) in zip(labels, decisions(z))
        confusion[truth + 1, decision + 1] += 1
    end
    loss = dispatch_barrier(mean_loss, loss_of(v.loss, K), z, targets(labels, K))::Float64
    penalty = dispatch_barrier(Float64, dispatch_barrier(penalty_value, kernel_penalties(layers(v, image_shape(data), K)), model))::Float64
    hits = [confusion[k, k] for k in 1:K]
    return (;
        loss,
        penalty,
        total=loss + penalty,
        accuracy=sum(hits) / length(labels),
        confusion,
        precision=hits ./ vec(sum(confusion; dims=1)),
        recall=hits ./ vec(sum(confusion; dims=2)),
    )
end

mean_loss(loss, z, y) = mean(Float64, loss(z, y; agg=identity))
