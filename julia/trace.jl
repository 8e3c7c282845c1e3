"""
    trace(variant, weights, images, labels, classes; learning_rate, masks = Dict())

Run some steps from given weights on given batches and return every number, so that two engines can be compared.

# Arguments
- `variant::Variant`
- `weights::AbstractString`: a weights file.
- `images::AbstractArray{UInt8,5}`: `W×H×C×B×steps`; `labels::AbstractMatrix`: `B×steps`, from 0.
- `classes::Integer`
- `learning_rate::Real`
- `masks::AbstractDict`: for each dropout layer the factors that its input is multiplied by, in Keras' layout reversed,
  `…×B×steps`; a dropout layer without a mask is off.

# Returns
- `Vector{Pair{String,Array{Float32}}}`, dimensions reversed: `logits` of the first batch before any step; `loss`,
  `penalty`, `total` of each step; `gradient/NAME` of the first step's total; `first/NAME` and `final/NAME`, the weights
  after one step and after the last.
"""
function trace(v::Variant, weights::AbstractString, images, labels, classes; learning_rate, masks=Dict())
    input = size(images)[1:3]
    model = build_model(v, input, classes)
    load_weights!(model, weights, input)
    optimiser = Optimisers.setup(KerasAdam(learning_rate), without_dropout(model))
    named(prefix, pairs) = ["$prefix/$name" => copy(array) for (name, array) in pairs]
    numbers = Pair{String,Array{Float32}}[]
    losses, values = Float32[], Float32[]
    for step in axes(images, 5)
        chain = with_masks(model, Dict(name => selectdim(mask, ndims(mask), step) for (name, mask) in masks))
        x, y = Float32.(view(images, :, :, :, :, step)), targets(labels[:, step], classes)
        penalties = kernel_penalties(v, chain)
        result, gradient = total_gradient(chain, loss_of(v.loss, classes), penalties, x, y, ones(Float32, size(x, 4)))
        push!(losses, result.loss)
        push!(values, result.penalty)
        if step == 1
            push!(numbers, "logits" => result.logits)
            gradients = canonical_arrays(model, input) do name
                gradient.layers[name].weight, gradient.layers[name].bias
            end
            append!(numbers, named("gradient", gradients))
        end
        # Masks have no weights: without them, the gradient has the form of the optimiser's state.
        bare = without_dropout(model)
        Optimisers.update!(optimiser, bare, (; layers=gradient.layers[keys(bare)]))
        step == 1 && append!(numbers, named("first", canonical_weights(model, input)))
    end
    append!(numbers, named("final", canonical_weights(model, input)))
    return append!(numbers, ["loss" => losses, "penalty" => values, "total" => losses .+ values])
end

function with_masks(model, masks)
    layers = Pair{Symbol,Any}[]
    for name in keys(model)
        if model[name] isa Dropout
            haskey(masks, string(name)) || continue
            push!(layers, name => Mask(to_layer(masks[string(name)])))
        else
            push!(layers, name => model[name])
        end
    end
    return Chain(; layers...)
end

struct Mask{T}
    factors::T
end

(layer::Mask)(x) = x .* layer.factors

# Of an image, (c, w, h, B) on disk is (w, h, c, B) here; of a vector, both are (units, B).
to_layer(mask) = ndims(mask) == 4 ? permutedims(mask, (2, 3, 1, 4)) : Array(mask)
