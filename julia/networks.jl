# Networks of a user's own: a chain of Flux's layers as a description that is data and no code, and the chain that it describes.

const MOST_LAYERS, MOST_NESTED, MOST_UNITS = 1000, 16, 1_000_000

"""
    cat_channels(x, y, …)

Join images of the same size, `W×H×C×N`, by their channels: what may join the branches of a `SkipConnection` or `Parallel` of Flux.
"""
cat_channels(images...) = cat(images...; dims=3)

# What may stand for an activation, or as a layer: functions of one array.
const ACTIVATIONS = Dict{String,Any}(string(name) => getfield(NNlib, name) for name in (:relu, :relu6, :leakyrelu, :elu, :selu, :celu, :gelu, :gelu_tanh,
    :gelu_erf, :swish, :hardswish, :mish, :softplus, :softsign, :sigmoid, :hardsigmoid, :tanh, :hardtanh, :lisht, :logcosh) if isdefined(NNlib, name))
ACTIVATIONS["identity"] = identity
# What joins the branches of a `SkipConnection` or `Parallel`.
const CONNECTIONS = Dict{String,Any}("+" => +, ".*" => Base.BroadcastFunction(*), "vcat" => vcat, "cat_channels" => cat_channels)

const KNOWN_LAYERS = "Chain, SkipConnection and Parallel (with +, .*, vcat or PhotoFlux.cat_channels), Dense, Scale, Conv, CrossCor, MaxPool, MeanPool, AdaptiveMaxPool, " *
                     "AdaptiveMeanPool, GlobalMaxPool, GlobalMeanPool, BatchNorm, InstanceNorm, GroupNorm, LayerNorm, Dropout, Flux.flatten, activations " *
                     "of NNlib by their names, PhotoFlux.Rescale, PhotoFlux.Convolution and PhotoFlux.maxpool2"

"""
    describe(chain)

Return a chain of Flux's layers as data: nested tables of names and numbers, from which [`build_network`](@ref) makes it again.

Layers without a name get one, `layer1`, `layer2`, …. What Flux computes and PhotoFlux has a kernel for is described as that: a 3×3 `Conv` with
zero padding that keeps the size, stride 1 and at most `relu` is a [`Convolution`](@ref), whose kernel is that of `Conv` turned by half a turn,
and `MaxPool((2, 2))` is [`maxpool2`](@ref).

# Arguments
- `chain::Chain`: of images, `W×H×C×N`, 0 to 255, to logits, `outputs×N`.

# Returns
- `Dict{String,Any}`: `"layer"`, the kind, and what it is made with; what has layers in it has `"layers"`, pairs of a name and a table.

# Throws
- `ArgumentError`: a layer that can be written only as code, such as an anonymous function; the message says which, and what there is.

# Examples
```jldoctest
julia> using PhotoFlux: Flux, describe

julia> describe(Flux.Chain(Flux.flatten, Flux.Dense(12 => 3)))["layers"][2][1]
"layer2"

julia> describe(Flux.Chain(Flux.flatten, Flux.Dense(12 => 3)))["layers"][2][2]["outputs"]
3
```
"""
function describe(chain::Chain)
    isempty(chain.layers) && throw(ArgumentError("The network has no layers."))
    arrays = [array for (_, array) in arrays_of(chain)]
    allunique(objectid.(arrays)) || throw(ArgumentError("Two layers of the network share an array. Give each its own."))
    return described(chain, "")
end

entry(kind; fields...) = Dict{String,Any}("layer" => kind, (string(name) => value for (name, value) in fields)...)

function name_in(table, f, what, place)
    name = findfirst(known -> known === f, table)
    name === nothing || return name
    throw(ArgumentError("The network's $what of `$place` is $(shown_function(f)), which can be written only as code. " *
                        "Take one of $(join(sort!(collect(keys(table))), ", "))."))
end
shown_function(f) = startswith(string(f), '#') ? "an anonymous function" : string(f)

activation(f, place) = name_in(ACTIVATIONS, f, "activation", place)
connection(f, place) = name_in(CONNECTIONS, f, "connection", place)
has_bias(layer) = layer.bias isa AbstractArray

function named_layers(layers, place)
    names = layers isa NamedTuple ? string.(keys(layers)) : ["layer$i" for i in 1:length(layers)]
    for name in names
        occursin(r"^\w+$", name) || throw(ArgumentError("The network's layer \"$name\" must have a name of letters, digits and _."))
    end
    return Any[Any[name, described(layer, inside(place, name))] for (name, layer) in zip(names, values(layers))]
end

inside(place, name) = place == "" ? name : "$place.$name"

described(layer::Chain, place) = entry("Chain"; layers=named_layers(layer.layers, place))
described(layer::Flux.Parallel, place) = entry("Parallel"; connection=connection(layer.connection, place), layers=named_layers(layer.layers, place))
described(layer::Flux.SkipConnection, place) =
    entry("SkipConnection"; connection=connection(layer.connection, place), layers=Any[Any["layers", described(layer.layers, inside(place, "layers"))]])
described(layer::Dense, place) =
    entry("Dense"; inputs=size(layer.weight, 2), outputs=size(layer.weight, 1), activation=activation(layer.σ, place), bias=has_bias(layer))
described(layer::Flux.Scale, place) = entry("Scale"; size=collect(size(layer.scale)), activation=activation(layer.σ, place), bias=has_bias(layer))

function described(layer::Conv, place)
    becomes_convolution(layer) && return described(turned(layer), place)
    return entry("Conv"; convolution_fields(layer, place)..., layer.groups)
end
described(layer::Flux.CrossCor, place) = entry("CrossCor"; convolution_fields(layer, place)...)
described(layer::Convolution, place) =
    entry("Convolution"; size=collect(size(layer.weight)), activation=activation(layer.σ, place), stride=first(layer.stride))

function convolution_fields(layer, place)
    ndims(layer.weight) == 4 || throw(ArgumentError("The network's layer `$place` is a convolution of $(ndims(layer.weight) - 2) dimensions; images have 2."))
    return (; size=collect(size(layer.weight)), activation=activation(layer.σ, place), bias=has_bias(layer), stride=collect(layer.stride),
        pad=four_sides(layer.pad), dilation=collect(layer.dilation))
end

# Left, right, top and bottom.
four_sides(pad) = length(pad) == 4 ? collect(pad) : collect(pad)[[1, 1, 2, 2]]

becomes_convolution(layer) = size(layer.weight)[1:2] == (3, 3) && layer.stride == layer.dilation == (1, 1) && all(==(1), layer.pad) && layer.groups == 1 &&
    layer.σ isa Rectifier && has_bias(layer)
turned(layer::Conv) = Convolution(layer.σ, reverse(layer.weight; dims=(1, 2)), layer.bias, (1, 1), (1, 1, 1, 1))

described(layer::Union{Flux.MaxPool,Flux.MeanPool}, place) =
    entry(string(nameof(typeof(layer))); window=collect(layer.k), stride=collect(layer.stride), pad=four_sides(layer.pad))
described(layer::ExactPool, place) = described(layer.layer, place)
described(::typeof(maxpool2), place) = described(Flux.MaxPool((2, 2)), place)
described(layer::Union{Flux.AdaptiveMaxPool,Flux.AdaptiveMeanPool}, place) = entry(string(nameof(typeof(layer))); size=collect(layer.out))
described(::Flux.GlobalMaxPool, place) = entry("GlobalMaxPool")
described(::Flux.GlobalMeanPool, place) = entry("GlobalMeanPool")
described(layer::Union{Flux.BatchNorm,Flux.InstanceNorm}, place) = entry(string(nameof(typeof(layer))); channels=layer.chs, activation=activation(layer.λ, place),
    epsilon=number(layer.ϵ), momentum=number(layer.momentum), layer.affine, tracked=layer.track_stats)
described(layer::Flux.GroupNorm, place) = entry("GroupNorm"; channels=layer.chs, groups=layer.G, activation=activation(layer.λ, place),
    epsilon=number(layer.ϵ), layer.affine)
described(layer::Flux.LayerNorm, place) =
    entry("LayerNorm"; size=collect(layer.size), activation=activation(layer.λ, place), epsilon=number(layer.ϵ), layer.affine)
described(layer::Dropout, place) =
    entry("Dropout"; rate=number(layer.p), dims=layer.dims isa Colon ? Int[] : Int[layer.dims...])
described(::typeof(Flux.flatten), place) = entry("flatten")
described(layer::Rescale, place) = entry("Rescale"; scale=number(layer.scale))

function described(layer::Function, place)
    name = findfirst(known -> known === layer, ACTIVATIONS)
    name === nothing || return entry("activation"; activation=name)
    hint = layer in (softmax, Flux.logsoftmax) ? " Leave it out: the loss is of logits." : " Such layers are $KNOWN_LAYERS."
    throw(ArgumentError("The network's layer `$place` is $(shown_function(layer)), which can be written only as code.$hint"))
end

described(layer, place) = throw(ArgumentError("The network's layer `$place` is a $(nameof(typeof(layer))), which can be written only as code. " *
                                              "Layers that PhotoFlux can write are $KNOWN_LAYERS."))

number(x::Real) = shortest(Float32(x))

"""
    build_network(description, take)

Return the chain of a description: a chain of named layers, in the mode that follows what is done with it (`nothing` of `Flux.testmode!`).

# Arguments
- `description::AbstractDict`: of [`describe`](@ref), or what JSON made of it.
- `take`: called with the name of an array, what it is (`:kernel`, `:zeros` or `:ones`, as it starts) and its size; returns the array.

# Throws
- `ArgumentError`: it does not describe a network.
"""
function build_network(description::AbstractDict, take)
    count_layers(description, 0) <= MOST_LAYERS || throw(ArgumentError("A network has at most $MOST_LAYERS layers."))
    get(description, "layer", nothing) == "Chain" || throw(ArgumentError("A network's description begins with a Chain; received: $(first(repr(description), 100))."))
    return built(description, "", take)::Chain
end

function count_layers(d, depth)
    depth <= MOST_NESTED || throw(ArgumentError("A network's layers are nested $MOST_NESTED deep at most."))
    d isa AbstractDict && get(d, "layer", nothing) isa AbstractString || not_described(d)
    inner = get(d, "layers", [])
    inner isa AbstractVector && all(pair -> pair isa AbstractVector && length(pair) == 2 && pair[1] isa AbstractString && occursin(r"^\w+$", pair[1]), inner) ||
        not_described(d)
    return 1 + sum(pair -> count_layers(pair[2], depth + 1), inner; init=0)
end

not_described(d, what="a layer with its fields") = throw(ArgumentError("A network's description must have $what; received: $(first(repr(d), 200))."))

field(d, name) = haskey(d, name) ? d[name] : not_described(d, "`$name`")
function whole(x, d, name; least=0)
    x isa Integer && !(x isa Bool) && least <= x <= MOST_UNITS || not_described(d, "`$name`, a whole number from $least to $MOST_UNITS")
    return Int(x)
end
whole(d, name; least=1) = whole(field(d, name), d, name; least)
function wholes(d, name, lengths; least=1)
    x = field(d, name)
    x isa AbstractVector && length(x) in lengths || not_described(d, "`$name`, a list of $(join(lengths, " or ")) whole numbers")
    return Tuple(whole(n, d, name; least) for n in x)
end
function flag(d, name)
    x = field(d, name)
    return x isa Bool ? x : not_described(d, "`$name`, true or false")
end
function real_number(d, name, most=Inf)
    x = field(d, name)
    x isa Real && !(x isa Bool) && 0 <= x <= most && isfinite(Float32(x)) || not_described(d, "`$name`, a number, 0 or more")
    return Float32(x)
end
known(table, d, name) = (x = field(d, name); x isa AbstractString && haskey(table, x) ? table[x] : not_described(d, "`$name`, one of $(join(sort!(collect(keys(table))), ", "))"))

function built(d, place, take)
    kind = d["layer"]
    array(name, role, dims...) = take(inside(place, name), role, dims)
    bias(n) = flag(d, "bias") ? array("bias", :zeros, n) : false
    σ() = known(ACTIVATIONS, d, "activation")
    function inner()
        pairs = [Symbol(name) => built(layer, inside(place, name), take) for (name, layer) in field(d, "layers")]
        names = first.(pairs)
        (isempty(pairs) || !allunique(names) || :connection in names || (:layers in names) != (kind == "SkipConnection")) && not_described(d, "layers with names of their own")
        return pairs
    end
    if kind == "Chain"
        return Chain(NamedTuple(inner()))
    elseif kind == "Parallel"
        return Flux.Parallel(known(CONNECTIONS, d, "connection"), NamedTuple(inner()))
    elseif kind == "SkipConnection"
        return Flux.SkipConnection(last(only(inner())), known(CONNECTIONS, d, "connection"))
    elseif kind == "Dense"
        outputs = whole(d, "outputs")
        return Dense(array("kernel", :kernel, outputs, whole(d, "inputs")), bias(outputs), σ())
    elseif kind == "Scale"
        size = wholes(d, "size", 1:3)
        return Flux.Scale(array("scale", :ones, size...), flag(d, "bias") ? array("bias", :zeros, size...) : false, σ())
    elseif kind == "Convolution"
        size, stride = wholes(d, "size", 4), whole(d, "stride")
        layer = Convolution(size[1:2], size[3] => size[4], σ(); stride, init=(dims...) -> array("kernel", :kernel, dims...))
        return Convolution(layer.σ, layer.weight, array("bias", :zeros, size[4]), layer.stride, layer.pad)
    elseif kind in ("Conv", "CrossCor")
        size = wholes(d, "size", 4)
        grouped = kind == "CrossCor" ? (;) : (; groups=whole(d, "groups"))
        kind == "Conv" && size[4] % grouped.groups != 0 && not_described(d, "`groups` that divide the outputs")
        type = kind == "Conv" ? Conv : Flux.CrossCor
        return type(array("kernel", :kernel, size...), bias(size[4]), σ(); stride=wholes(d, "stride", 2), pad=wholes(d, "pad", 4; least=0),
            dilation=wholes(d, "dilation", 2), grouped...)
    elseif kind in ("MaxPool", "MeanPool")
        window, stride, pad = wholes(d, "window", 2), wholes(d, "stride", 2), wholes(d, "pad", 4; least=0)
        kind == "MeanPool" && return Flux.MeanPool(window, pad, stride)
        return window == stride == (2, 2) && all(iszero, pad) ? maxpool2 : ExactPool(Flux.MaxPool(window, pad, stride))
    elseif kind == "AdaptiveMaxPool"
        return ExactPool(Flux.AdaptiveMaxPool(wholes(d, "size", 2)))
    elseif kind == "AdaptiveMeanPool"
        return Flux.AdaptiveMeanPool(wholes(d, "size", 2))
    elseif kind == "GlobalMaxPool"
        return ExactPool(Flux.GlobalMaxPool())
    elseif kind == "GlobalMeanPool"
        return Flux.GlobalMeanPool()
    elseif kind in ("BatchNorm", "InstanceNorm")
        n, affine, tracked = whole(d, "channels"), flag(d, "affine"), flag(d, "tracked")
        type = kind == "BatchNorm" ? Flux.BatchNorm : Flux.InstanceNorm
        return type(σ(), affine ? array("beta", :zeros, n) : nothing, affine ? array("gamma", :ones, n) : nothing,
            tracked ? array("mean", :zeros, n) : nothing, tracked ? array("variance", :ones, n) : nothing, real_number(d, "epsilon"), real_number(d, "momentum", 1),
            affine, tracked, nothing, n)
    elseif kind == "GroupNorm"
        n, groups, affine = whole(d, "channels"), whole(d, "groups"), flag(d, "affine")
        n % groups == 0 || not_described(d, "`groups` that divide the channels")
        return Flux.GroupNorm(groups, σ(), affine ? array("beta", :zeros, n) : nothing, affine ? array("gamma", :ones, n) : nothing, nothing, nothing,
            real_number(d, "epsilon"), 0.1f0, affine, false, nothing, n)
    elseif kind == "LayerNorm"
        size, affine, λ = wholes(d, "size", 1:3), flag(d, "affine"), σ()
        diag = affine ? Flux.Scale(array("scale", :ones, size...), array("bias", :zeros, size...), λ) : λ === identity ? identity : Base.Fix1(broadcast, λ)
        return Flux.LayerNorm(λ, diag, real_number(d, "epsilon"), size, affine)
    elseif kind == "Dropout"
        dims = wholes(d, "dims", 0:4)
        rate = real_number(d, "rate")
        rate < 1 || not_described(d, "`rate`, a number below 1")
        return Dropout(rate; dims=isempty(dims) ? (:) : dims, rng=SplitMix(0))
    elseif kind == "flatten"
        return Flux.flatten
    elseif kind == "Rescale"
        return Rescale(real_number(d, "scale"))
    elseif kind == "activation"
        return Elementwise(σ())
    end
    not_described(d, "layers of these kinds: $KNOWN_LAYERS")
end

"""
    Elementwise(f)

A layer that applies an activation to each number.
"""
struct Elementwise{F}
    f::F
end

(layer::Elementwise)(x) = layer.f.(x)
Base.show(io::IO, layer::Elementwise) = print(io, layer.f)
described(layer::Elementwise, place) = described(layer.f, place)

# The layers in a layer, by name; and the arrays of its own, by their names in a file.
inner_layers(layer) = ()
inner_layers(layer::Union{Chain,Flux.Parallel}) = layer.layers isa NamedTuple ? pairs(layer.layers) : ["layer$i" => inner for (i, inner) in enumerate(layer.layers)]
inner_layers(layer::Flux.SkipConnection) = (:layers => layer.layers,)

own_arrays(layer) = ()
own_arrays(layer::Union{Dense,Conv,Flux.CrossCor,Convolution}) = ("kernel" => layer.weight, "bias" => layer.bias)
own_arrays(layer::Flux.Scale) = ("scale" => layer.scale, "bias" => layer.bias)
own_arrays(layer::Flux.LayerNorm) = own_arrays(layer.diag)
own_arrays(layer::Union{Flux.BatchNorm,Flux.InstanceNorm,Flux.GroupNorm}) = ("beta" => layer.β, "gamma" => layer.γ, "mean" => layer.μ, "variance" => layer.σ²)

# Calls f(place, layer) with each layer of a network, what it is in before what is in it.
function foreach_layer(f, @nospecialize(layer), place="")
    f(place, layer)
    for (name, inner) in inner_layers(layer)
        foreach_layer(f, inner, inside(place, string(name)))
    end
end

function arrays_of(@nospecialize(model))
    found = Pair{String,Any}[]
    foreach_layer(model) do place, layer
        append!(found, inside(place, name) => array for (name, array) in own_arrays(layer) if array isa AbstractArray)
    end
    return found
end

"""
    network_variant(chain, input; name = "chain", penalty = NoPenalty(), patience, epochs = 20, batch_size = 32, learning_rate = 0.001, …)

Return the [`Variant`](@ref) of a network of your own. Its weights are not part of it.

# Arguments
- `chain::Chain`: of Flux's layers; [`PhotoFlux.describe`](@ref) says which.
- `input::NTuple{3,Integer}`: width, height and channels of its images.
- `penalty`: of the kernels of its `Dense` layers and convolutions; the others as of a `Variant`.

# Returns
- `Variant`

# Throws
- `ArgumentError`: a layer that can be written only as code, a network that does not take such images, or a value that cannot be used.

# Examples
```jldoctest
julia> using PhotoFlux: Flux

julia> v = network_variant(Flux.Chain(Flux.flatten, Flux.Dense(12 => 1)), (2, 2, 3); penalty=L2(0.01));

julia> v.architecture, v.penalty["kernels"]
("chain", L2(0.01f0))
```
"""
function network_variant(chain::Chain, input::NTuple{3,Integer}; penalty::Penalty=NoPenalty(), name="chain", more...)
    description = describe(chain)
    noted!(description, turned_layers(chain), input)
    on_kernels = penalty isa NoPenalty ? Dict{String,Penalty}() : Dict{String,Penalty}("kernels" => penalty)
    return Variant(; name, architecture=NETWORK, hidden=Int[], chain=description, penalty=on_kernels, more...)
end

# Notes with each layer that has no others in it what it makes of an image, (height, width, channels) or (units,), and which arrays it has, by their
# sizes in a file: for readers that have no Flux. Returns what the chain makes of an image.
function noted!(description, chain, input)
    return note!(description, resting(chain), zeros(Float32, input..., 1), "", input)
end

# Returns what the layer makes of `x`.
function note!(d, layer::Union{Chain,Flux.Parallel,Flux.SkipConnection}, x, place, input)
    branches, y = zip(d["layers"], values(inner_of(layer))), x
    for ((name, inner), part) in branches
        y = note!(inner, part, layer isa Chain ? y : x, inside(place, name), input)
    end
    return layer isa Chain ? y : applied(layer, x, place, input)
end

function note!(d, layer, x, place, input)
    y = applied(layer, x, place, input)
    d["output"] = collect(ndims(y) == 4 ? size(y)[[2, 1, 3]] : size(y)[1:(end - 1)])
    d["arrays"] = Any[Any[name, collect(reverse(size(array)))] for (name, array) in own_arrays(layer) if array isa AbstractArray]
    return y
end

inner_of(layer) = layer.layers
inner_of(layer::Flux.SkipConnection) = (layer.layers,)

function applied(layer, x, name, input)
    try
        return layer(x)::AbstractArray
    catch err
        err isa InterruptException && rethrow()
        throw(ArgumentError("The network does not take images of $(join(input, '×')) (W×H×C): its layer `$name` is given numbers of size $(join(size(x), '×')), the last " *
                            "for one image. $(first(split(sprint(showerror, err), '\n')))"))
    end
end

turned_layers(layer) = layer
turned_layers(layer::Conv) = becomes_convolution(layer) ? turned(layer) : layer
turned_layers(layer::Chain) = Chain(map(turned_layers, layer.layers))
turned_layers(layer::Flux.Parallel) = Flux.Parallel(layer.connection, map(turned_layers, layer.layers))
turned_layers(layer::Flux.SkipConnection) = Flux.SkipConnection(turned_layers(layer.layers), layer.connection)
