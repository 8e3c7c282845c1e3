# Backbones: pretrained networks that turn an image into features, as plain Flux chains. Their weights are in the safetensors
# file that Python makes once in the cache (docs/features.md has its format), or in one given by its path.

const BACKBONE_FORMAT = "photoflux-backbone-1"

"""
    PixelScale(mean, scale, size)

A backbone's first layer: from raw pixels, 0 to 255, to `(x - mean) / scale`, `W×H×3×N` of `Float32`.

A grey image, of one channel, is repeated to three. The layers after it are padded for one size of images, so others are refused.

# Arguments
- `mean::Real`, `scale::Real`
- `size::NTuple{2,Int}`: width and height of the images.

# Throws
- `DimensionMismatch`: when it is called with images of another size, or of other than 1 or 3 channels.
"""
struct PixelScale
    mean::Float32
    scale::Float32
    size::NTuple{2,Int}
end

function (layer::PixelScale)(x::AbstractArray{<:Real,4})
    check_pixels(layer, x)
    scaled = (x .- layer.mean) ./ layer.scale
    return size(x, 3) == 3 ? scaled : repeat(scaled, 1, 1, 3, 1)
end

function check_pixels(layer::PixelScale, x)
    width, height, channels = size(x)
    if (width, height) != layer.size || !(channels in (1, 3))
        expected = join(layer.size, '×')
        throw(DimensionMismatch("This backbone takes images of $expected pixels in 1 or 3 channels; received: $(width)×$(height)×$channels. " *
                                "Load it with `image_size=($width, $height)`."))
    end
end

"""
    load_backbone(source; image_size = nothing)

Return a pretrained backbone: a plain Flux `Chain` from raw pixels to features.

Its layers are [`PixelScale`](@ref), `stem`, `block1`, `block2`, …, `top`, the mean over all pixels and `Flux.flatten`: `Conv` with
`relu6`, the depthwise ones with as many groups as channels, a `SkipConnection` where a block's input is added to its output. The
zero padding is TensorFlow's `same` for images of one size. [`backbone_features`](@ref) runs it with kernels for a CPU; called as a
function, moved to a GPU or trained it is Flux's own.

# Arguments
- `source::AbstractString`: the path of a file ending in `.safetensors`; or a name such as `"efficientnet-lite2"`, whose file is in PhotoFlux's cache,
  where Python makes it; or several names with `+` between them, whose features stand one below the other.
- `image_size`: width and height of the images, `(260, 260)` or one number for both; nothing: the size that the backbone was trained
  on, the largest of several.

# Returns
- `Chain`: takes `W×H×3×N` or `W×H×1×N`, 0 to 255; returns `features×N`.

# Throws
- `ArgumentError`: there is no such file, or it is not the weights of a backbone.
"""
function load_backbone(source::AbstractString; image_size=nothing)
    files = [read_backbone(path) for path in backbone_paths(source)]
    both = @something image_size maximum(file.network.image_size for file in files)
    width, height = length(both) == 1 ? (Int(both), Int(both)) : Int.(Tuple(both))
    min(width, height) >= 1 || throw(ArgumentError("`image_size` must be 1 or more in both directions; received: $image_size."))
    return chain_of(files, (width, height))
end

function chain_of(files, size)
    chains = [backbone_chain(file, size) for file in files]
    return length(chains) == 1 ? only(chains) : Chain(; beside=Flux.Parallel(vcat, chains...))
end

function backbone_paths(source)
    endswith(source, ".safetensors") && return [String(source)]
    return map(split(source, '+')) do name
        occursin(r"^[\w.-]+\z", name) || throw(ArgumentError("`$(first(name, 100))` is not the name of a backbone."))
        path = joinpath(cache_folder(), "backbones", "$name.safetensors")
        isfile(path) || throw(ArgumentError("The backbone $name is not in PhotoFlux's cache: there is no $path. Python makes it: " *
                                            "`photoflux train transfer FOLDER --backbone $name`, or give the path of its .safetensors file."))
        path
    end
end

# As Python's platformdirs.user_cache_path("photoflux").
function cache_folder()
    named = get(ENV, "PHOTOFLUX_CACHE", "")
    isempty(named) || return expanduser(named)
    Sys.isapple() && return joinpath(homedir(), "Library", "Caches", "photoflux")
    Sys.iswindows() && return joinpath(get(ENV, "LOCALAPPDATA", joinpath(homedir(), "AppData", "Local")), "photoflux", "photoflux", "Cache")
    base = strip(get(ENV, "XDG_CACHE_HOME", ""))
    return joinpath(isempty(base) ? joinpath(homedir(), ".cache") : String(base), "photoflux")
end

# The arrays of a folded weights file, and what its header says of the network.
function read_backbone(path)
    isfile(path) || throw(ArgumentError("There is no backbone $path."))
    arrays, metadata = read_tensors(path, Float32, "a backbone")
    wrong(what) = throw(ArgumentError("$path is not a backbone of PhotoFlux: $what."))
    format = get(metadata, "format", "none")
    format == BACKBONE_FORMAT || wrong("its format is $format; expected $BACKBONE_FORMAT")
    network = try
        dispatch_barrier(network_of, parse_json(metadata["description"]))::NetworkDescription
    catch err
        err isa InterruptException && rethrow()
        wrong("its header does not describe the network")
    end
    return BackboneFile(arrays, metadata, network, wrong)
end

# Of each block: its stride, whether its input is added to its output, and whether it begins with an expansion.
struct NetworkDescription
    name::String
    mean::Float32
    scale::Float32
    image_size::Int
    blocks::Vector{@NamedTuple{stride::Int, residual::Bool, expand::Bool}}
end

# More than any has; Julia compiles for each other number of them.
const MAX_BLOCKS = 200

function network_of(header)
    length(header["blocks"]) <= MAX_BLOCKS || throw(ArgumentError("it has $(length(header["blocks"])) blocks"))
    blocks = [(; stride=Int(b["stride"]), residual=Bool(b["residual"]), expand=Bool(b["expand"])) for b in header["blocks"]]
    all(block -> block.stride in (1, 2), blocks) && isfinite(header["mean"]) && isfinite(header["scale"]) && header["scale"] != 0 &&
        1 <= header["image_size"] <= typemax(UInt16) || throw(ArgumentError("a number is out of range"))
    return NetworkDescription(header["name"], header["mean"], header["scale"], header["image_size"], blocks)
end

struct BackboneFile
    arrays::Dict{String,Array{Float32}}
    metadata::Dict{String,String}
    network::NetworkDescription
    wrong::Any    # throws the error that says what is wrong with the file
end

function backbone_chain(file::BackboneFile, size)
    (; network, wrong) = file
    unused, channels = Set(keys(file.arrays)), 3
    function conv(name, σ, stride=1)
        kernel, bias = (pop!(unused, "$name.$part", nothing) === nothing ? nothing : file.arrays["$name.$part"] for part in ("kernel", "bias"))
        kernel isa Array{Float32,4} && bias isa Vector{Float32} || wrong("it has no $name.kernel and $name.bias")
        layer = backbone_conv(kernel, bias, σ, size, stride, endswith(name, "depthwise"))
        if Base.size(layer.weight, 3) * layer.groups != channels || Base.size(layer.weight, 4) != length(bias)
            wrong("$name.kernel is $(shape_in_keras(kernel)), which does not fit its $channels inputs and $(length(bias)) outputs")
        end
        size, channels = cld.(size, stride), length(bias)
        return layer
    end
    named = Pair{Symbol,Any}[:scale => PixelScale(network.mean, network.scale, size), :stem => conv("stem", relu6, 2)]
    for (number, block) in enumerate(network.blocks)
        name, entering = "block$number", channels
        parts = Pair{Symbol,Any}[]
        block.expand && push!(parts, :expand => conv("$name.expand", relu6))
        push!(parts, :depthwise => conv("$name.depthwise", relu6, block.stride), :project => conv("$name.project", identity))
        block.residual && (block.stride, channels) != (1, entering) && wrong("the output of $name cannot be added to its input")
        chain = Chain(; parts...)
        push!(named, Symbol(name) => block.residual ? Flux.SkipConnection(chain, +) : chain)
    end
    push!(named, :top => conv("top", relu6), :mean => Flux.GlobalMeanPool(), :flatten => Flux.flatten)
    isempty(unused) || wrong("its header does not describe $(minimum(unused))")
    return Chain(; named...)
end

# The sha256 of a backbone's weights in the order of the network, as Python computes it.
function weights_fingerprint((; arrays, network)::BackboneFile)
    blocks = [["block$number.$part" for part in (block.expand ? ("expand", "depthwise", "project") : ("depthwise", "project"))]
        for (number, block) in enumerate(network.blocks)]
    context = SHA.SHA2_256_CTX()
    for name in ["stem"; reduce(vcat, blocks; init=String[]); "top"], part in ("kernel", "bias")
        SHA.update!(context, reinterpret(UInt8, htol.(vec(arrays["$name.$part"]))))
    end
    return bytes2hex(SHA.digest!(context))
end

# Flux's Conv flips its kernel; a depthwise one has as many groups as channels.
function backbone_conv(kernel, bias, σ, size, stride, depthwise)
    weight = reverse(to_flux(kernel, nothing); dims=(1, 2))
    pad = same_padding(Base.size(weight)[1:2], size, stride)
    depthwise || return Conv(weight, bias, σ; stride, pad)
    return Conv(reshape(weight, Base.size(weight, 1), Base.size(weight, 2), 1, :), bias, σ; stride, pad, groups=Base.size(weight, 3))
end

# TensorFlow's `same`: as many outputs as strides begin in the image; of an odd number of zeros one more at the end.
function same_padding(kernel, size, stride)
    totals = max.((cld.(size, stride) .- 1) .* stride .+ kernel .- size, 0)
    return (totals[1] ÷ 2, cld(totals[1], 2), totals[2] ÷ 2, cld(totals[2], 2))
end
