# The backbone of a run: which one it is, and the features that the head is fitted to and applied to.

# In a run's folder, the weights of a backbone that is not the one in the cache, such as a fine-tuned one.
const BACKBONE_FILE = "backbone.safetensors"

"""
    RunBackbone(source, input)

The backbone of a [`Run`](@ref), which makes features of its images; `source` is as for [`load_backbone`](@ref), and `input` width, height
and channels of the images.

# Fields
- `network::PreparedBackbone`: loaded for images of this size.
- `entry::Dict{String,Any}`: what `run.json` says of it: its `name`, how many `features`, the `fingerprint` of its weights, its
  `networks`, each with a `name` and `fingerprint`, and more.
- `file::Union{Nothing,String}`: the file with its weights where it was given by its path; a run takes a copy along.

# Throws
- `ArgumentError`: there is no such backbone.
"""
struct RunBackbone
    network::PreparedBackbone
    entry::Dict{String,Any}
    file::Union{Nothing,String}
end

function RunBackbone(source::AbstractString, input)
    paths = backbone_paths(source)
    files = map(read_backbone, paths)
    network = dispatch_barrier(PreparedBackbone, chain_of(files, input[1:2]))::PreparedBackbone
    own = endswith(source, ".safetensors")
    names = own ? [only(files).network.name] : String.(split(source, '+'))
    prints = map(weights_fingerprint, files)
    # The fields and names of Python's `Backbone.as_dict`.
    entry = Dict{String,Any}(
        "name" => join(names, '+'),
        "features" => sum(features_of, network.parts),
        "image_size" => maximum(file.network.image_size for file in files),
        "fingerprint" => length(prints) == 1 ? only(prints) : bytes2hex(sha256(join(prints, '+'))),
        "precision" => "float32",
        "networks" => [Dict("name" => name, "fingerprint" => print) for (name, print) in zip(names, prints)],
        "views" => 0,
    )
    own && (entry["file"] = BACKBONE_FILE)
    return RunBackbone(network, entry, own ? abspath(only(paths)) : nothing)
end

# The backbone that a run's run.json says, of Julia or of Python.
function backbone_from(folder, entry, input)
    name = entry["name"]
    if entry["precision"] != "float32" || any(part -> haskey(part, "path"), entry["networks"])
        kind = entry["precision"] == "float32" ? "an ONNX file" : "in $(entry["precision"])"
        throw(ArgumentError("The backbone of the run $folder, $name, is $kind, which only Python computes, through ONNX Runtime. " *
                            "Take `photoflux evaluate` and `photoflux predict`, or train on a backbone in float32."))
    end
    source = get(entry, "file", nothing) === nothing ? name : joinpath(folder, BACKBONE_FILE)
    found = RunBackbone(source, input)
    if found.entry["fingerprint"] != entry["fingerprint"]
        throw(ArgumentError("The run $folder was made with a backbone $name of other weights: their fingerprint was " *
                            "$(entry["fingerprint"]), that of $source is $(found.entry["fingerprint"]). Give the weights that it was made " *
                            "with, or train again."))
    end
    return RunBackbone(found.network, Dict{String,Any}(entry), found.file)
end

# What the layers of a run take: images, or a backbone's features of them.
head_input(input, ::Nothing) = input
head_input(_, backbone::RunBackbone) = (1, 1, Int(backbone.entry["features"]))

# Images that are taken out of a dataset at a time: it bounds the memory.
const FEATURE_BLOCK = 256

"""
    features_dataset(backbone, data, chosen)

Return the features of chosen images as a dataset of its own, with their labels and parts; how many are done is logged every ten
seconds and at the end.

# Arguments
- `backbone::RunBackbone`
- `data::PreparedDataset`: of images, of the size that the backbone was loaded for.
- `chosen::Vector{Int}`: which.
"""
function features_dataset(backbone::RunBackbone, data::PreparedDataset, chosen)
    images, n = data.images::Array{UInt8,4}, length(chosen)
    found = Array{Float32}(undef, head_input(nothing, backbone)..., n)
    matrix, began = reshape(found, :, n), time()
    told = began
    for block in Iterators.partition(1:n, FEATURE_BLOCK)
        matrix[:, block] = backbone_features(backbone.network, images[:, :, :, chosen[block]])
        done, now = last(block), time()
        if done == n || now - told >= 10
            @info @sprintf("Features of %d of %d images by %s, %.1f images/s", done, n, backbone.entry["name"], done / (now - began))
            told = now
        end
    end
    return PreparedDataset(found, data.labels[chosen], data.split[chosen], data.classes, data.name, data.fingerprint, data.about)
end
