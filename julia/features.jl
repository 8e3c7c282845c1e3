# What a backbone makes of images: with the kernels for a CPU where its layers are those of load_backbone, else with Flux's own.
const Relu6Conv = Conv{2,4,typeof(relu6),Array{Float32,4},Vector{Float32}}
const LinearConv = Conv{2,4,typeof(identity),Array{Float32,4},Vector{Float32}}

# A backbone, or one of several side by side; `network` has its weights packed for the kernels, nothing where there are none for it.
struct PreparedPart
    chain::Chain
    network::Union{BottleneckNetwork,Nothing}
end

"""
    PreparedBackbone(backbone)

A backbone of [`load_backbone`](@ref) with its weights packed for the kernels, for [`backbone_features`](@ref) again and again.

Later changes of the chain's weights do not reach it.
"""
struct PreparedBackbone
    parts::Vector{PreparedPart}
end

function PreparedBackbone(@nospecialize(backbone::Chain))
    beside = fields(backbone.layers)
    chains = length(beside) == 1 && only(beside) isa Flux.Parallel ? fields(only(beside).layers) : Any[backbone]
    return PreparedBackbone([PreparedPart(chain, packed_network(chain)) for chain in chains])
end

# The layers without their types, of which each backbone has others, so that nothing is compiled for these.
fields(@nospecialize(layers)) = Any[getfield(layers, i) for i in 1:nfields(layers)]

# The kernels' form of a chain; nothing where the chain has other layers, or layers that do not fit each other.
function packed_network(@nospecialize(chain::Chain))
    list = fields(chain.layers)
    length(list) >= 6 || return nothing
    scale, stem, blocks, (top, pool, flatten) = list[1], list[2], list[3:(end - 3)], list[(end - 2):end]
    scale isa PixelScale && stem isa Relu6Conv && is_pointwise(top, Relu6Conv) && pool isa Flux.GlobalMeanPool && flatten === Flux.flatten || return nothing
    stem.groups == 1 && size(stem.weight, 3) == 3 && stem.dilation == (1, 1) || return nothing
    window = window_of(stem, scale.size)
    packed_stem = window === nothing ? nothing : Stem(window, scale.mean, scale.scale, packed(stem))
    inputs, packed_blocks = size(stem.weight, 4), Bottleneck[]
    for block in blocks
        window === nothing && return nothing
        made = packed_block(block, out_size(window), inputs)
        made === nothing && return nothing
        push!(packed_blocks, made)
        window, inputs = made.window, made.project.outputs
    end
    size(top.weight, 3) == inputs || return nothing
    return BottleneckNetwork(packed_stem, packed_blocks, packed(top))
end

function packed_block(@nospecialize(block), size_, inputs)
    residual = block isa Flux.SkipConnection && block.connection === +
    chain = residual ? block.layers : block
    chain isa Chain && length(chain) in (2, 3) || return nothing
    list = fields(chain.layers)
    expand, depthwise, project = length(list) == 3 ? list : (nothing, list...)
    (expand === nothing || is_pointwise(expand, Relu6Conv) && size(expand.weight, 3) == inputs) && is_pointwise(project, LinearConv) || return nothing
    middle = expand === nothing ? inputs : size(expand.weight, 4)
    depthwise isa Relu6Conv && depthwise.groups == size(depthwise.weight, 4) == middle == size(project.weight, 3) || return nothing
    window = window_of(depthwise, size_)
    window === nothing && return nothing
    has_depthwise_kernel(window.kernel, window.stride) || return nothing
    residual && (out_size(window), size(project.weight, 4)) != (size_, inputs) && return nothing
    weight = dropdims(reverse(depthwise.weight; dims=(1, 2)); dims=3)
    return Bottleneck(window, inputs, expand === nothing ? nothing : packed(expand, CHUNK),
        PackedDepthwise(weight, depthwise.bias, window.stride), packed(project), residual)
end

is_pointwise(@nospecialize(layer), kind) = layer isa kind && size(layer.weight)[1:2] == (1, 1) && layer.groups == 1 &&
    layer.stride == (1, 1) && all(==(0), layer.pad)

# Flux's Conv flips its kernel.
packed(layer, group...) = PackedPointwise(reshape(reverse(layer.weight; dims=(1, 2)), :, size(layer.weight, 4)), layer.bias, group...)

function window_of(layer, size_)
    width, height = size(layer.weight)
    width == height && allequal(layer.stride) && layer.dilation == (1, 1) && length(layer.pad) == 4 || return nothing
    window = Window(size_, width, first(layer.stride), layer.pad)
    return min(window.out_width, window.out_height) >= 1 ? window : nothing
end

"""
    backbone_features(backbone, images; batch_size = 32)

Return the features of images, in batches of bounded memory.

A chain that has the layers of [`load_backbone`](@ref), in the computer's memory, is run by kernels for a CPU; any other by its own
layers.

# Arguments
- `backbone`: a chain of [`load_backbone`](@ref); or a [`PreparedBackbone`](@ref), which is faster for few images.
- `images::AbstractArray{<:Real,4}`: `W×H×C×N`, 0 to 255, of the size that the backbone was loaded for; 1 or 3 channels.
- `batch_size::Integer`: images at a time; it bounds the memory.

# Returns
- `Matrix{Float32}`: `features×N`.

# Throws
- `DimensionMismatch`: images of another size.
"""
backbone_features(@nospecialize(backbone::Chain), images::AbstractArray{<:Real,4}; batch_size::Integer=32) =
    backbone_features(PreparedBackbone(backbone), images; batch_size)

function backbone_features(backbone::PreparedBackbone, images::AbstractArray{<:Real,4}; batch_size::Integer=32)
    batch_size >= 1 || throw(ArgumentError("`batch_size` must be 1 or more; received: $batch_size."))
    foreach(part -> check_pixels(first(fields(part.chain.layers)), images), backbone.parts)
    found = [Matrix{Float32}(undef, features_of(part), size(images, 4)) for part in backbone.parts]
    with_buffers() do buffers
        GC.@preserve buffers images for batch in Iterators.partition(axes(images, 4), batch_size)
            # Interrupts are handled between two batches: one must not strike while threads are started.
            disable_sigint(() -> on_all_threads(() -> batch_features!(found, backbone, images, batch, buffers), has_kernels(backbone)))
        end
    end
    return length(found) == 1 ? only(found) : reduce(vcat, found)
end

has_kernels(backbone::PreparedBackbone) = all(part -> part.network !== nothing, backbone.parts)

function batch_features!(found, backbone, images, batch, buffers)
    x = pixels_of(images, batch)
    for (y, part) in zip(found, backbone.parts)
        if part.network === nothing
            y[:, batch] = dispatch_barrier(by_layers, part.chain, x)
        else
            bottleneck_features!(part_of(y, batch), part.network, x, buffers, :backbone)
        end
    end
end

features_of(part::PreparedPart) = part.network === nothing ? length(part.chain[end - 2].bias) : part.network.top.outputs

# Images of a batch in the types that the kernels take; not copied if they are so.
pixels_of(images::Array{<:Union{UInt8,Float32},4}, batch) = part_of(images, batch)
pixels_of(images, batch) = Float32.(view(images, :, :, :, batch))

# A range of an array's last dimension, sharing its memory; good while the array lives.
function part_of(array::Array{T,N}, range) where {T,N}
    return unsafe_wrap(Array, pointer(array) + (first(range) - 1) * stride(array, N) * sizeof(T), (size(array)[1:(N - 1)]..., length(range)))::Array{T,N}
end

"""
    backbone_activations(backbone, images)

Return what every part of a backbone makes of images: pairs of `"stem"`, `"block1"`, … and an array `W×H×C×N`, and `"features"` and a
matrix `features×N`.

# Arguments
- `backbone::PreparedBackbone`: one, not several side by side.
- `images::AbstractArray{<:Real,4}`: as for [`backbone_features`](@ref).
"""
function backbone_activations(backbone::PreparedBackbone, images::AbstractArray{<:Real,4})
    part = only(backbone.parts)
    check_pixels(part.chain[1], images)
    names = [string.(fieldnames(typeof(part.chain.layers)))[2:(end - 3)]..., "features"]
    network = part.network
    if network === nothing
        values, x = Any[], dispatch_barrier(part.chain[1], images)
        for layer in fields(part.chain.layers)[2:end]
            x = dispatch_barrier(layer, x)
            push!(values, x)
        end
        return names .=> Any[values[1:(end - 3)]..., values[end]]
    end
    x = pixels_of(images, axes(images, 4))
    found, features = with_buffers() do buffers
        GC.@preserve images buffers disable_sigint() do
            on_all_threads(() -> bottleneck_activations(network, x, buffers, :backbone))
        end
    end
    return names .=> Any[found..., features]
end
