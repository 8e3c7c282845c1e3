# A network of a user's own as the rest of the package asks for it: its model, its weights in a file, its penalties and what training changes in it.

# The arrays that a pass through a network in training changes, and no gradient does.
function statistics(@nospecialize(model))
    found = AbstractArray[]
    foreach_layer(model) do _, layer
        layer isa Union{Flux.BatchNorm,Flux.InstanceNorm} && layer.track_stats && push!(found, layer.μ, layer.σ²)
    end
    return found
end

build_model(list::NetworkLayers; rng::AbstractRNG=Xoshiro()) = build_network(list.network, (name, role, dims) -> fresh(rng, role, dims))

fresh(rng, role, dims) = role === :kernel ? glorot(rng)(dims...) : role === :ones ? ones(Float32, dims) : zeros(Float32, dims)

standardisations(::NetworkLayers) = Symbol[]
input_of(list::NetworkLayers) = list.input
canonical_weights(model::Chain, ::NetworkLayers) = Pair{String,Array{Float32}}[name => Array{Float32}(array) for (name, array) in arrays_of(model)]

# By where the gradient and the state of Adam have it too; see `kernel_at`.
function kernel_penalties(list::NetworkLayers)
    found = Pair{Symbol,Penalty}[]
    list.penalty isa NoPenalty || penalise!(found, list.network, "", list.penalty)
    return found
end

function penalise!(found, d, place, penalty)
    within = d["layer"] == "SkipConnection" ? place : inside(place, "layers")
    for (name, inner) in get(d, "layers", [])
        there = inside(within, name)
        inner["layer"] in ("Dense", "Conv", "CrossCor", "Convolution") && push!(found, Symbol(place == "" ? name : there) => penalty)
        penalise!(found, inner, there, penalty)
    end
end

# The weights of a chain in the form of its description.
network_arrays(chain::Chain) = Dict{String,Array{Float32}}(name => Array{Float32}(array) for (name, array) in arrays_of(turned_layers(chain)))

# An array of which only the size is known.
struct Absent{N} <: AbstractArray{Float32,N}
    dims::Dims{N}
end

Base.size(array::Absent) = array.dims

function stored_shapes(list::NetworkLayers)
    shapes = Pair{String,Dims}[]
    build_network(list.network, (name, role, dims) -> (push!(shapes, name => reverse(dims)); Absent(dims)))
    return shapes
end

copy_stored!(model, arrays, ::NetworkLayers) = (foreach(((name, array),) -> copyto!(array, arrays[name]), arrays_of(model)); model)

# The chain has the file's own arrays: memory is taken only for weights that are there.
model_of(list::NetworkLayers, arrays) = build_network(list.network, (name, role, dims) -> arrays[name])

# An error unless the network takes the images and gives the logits that it must.
function check_network(model::Chain, list::NetworkLayers)
    x = noted!(as_network(list.network), model, list.input)
    size(x) == (list.outputs, 1) ||
        throw(DimensionMismatch("The network makes of an image of $(join(list.input, '×')) (W×H×C) numbers of size $(join(size(x)[1:(end - 1)], '×')); expected " *
                                "$(list.outputs): one logit for two classes, else one for each. End it with `Dense(… => $(list.outputs))`."))
    return nothing
end
