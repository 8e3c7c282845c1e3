"""
    save_run(folder, run)

Write a run: `run.json`, `history.csv`, `weights.safetensors` and `seen.safetensors`, the files that `photoflux evaluate` and `predict` read;
of a run on a backbone that was given by its path also `backbone.safetensors`.

# Arguments
- `folder::AbstractString`: is made if it is missing; a folder that has other files and no `run.json` is refused.
- `run::Run`

# Returns
- `folder`

# Throws
- `ArgumentError`: `folder` exists and is not a run.
"""
function save_run(folder::AbstractString, run::Run)
    if ispath(folder) && !isfile(joinpath(folder, "run.json")) && !(isdir(folder) && is_without_files(folder))
        throw(ArgumentError("$folder exists and is not a run (it has no run.json); choose another folder."))
    end
    mkpath(folder)
    write_backbone(folder, run.backbone)
    write_weights(joinpath(folder, "weights.safetensors"), run.model, layers(run); metadata=weights_metadata(run))
    write_seen(folder, run.seen)
    replace_file(joinpath(folder, "history.csv")) do io
        isempty(run.history) || println(io, join(keys(first(run.history)), ','))
        foreach(row -> println(io, join(values(row), ',')), run.history)
    end
    w, h, c = run.input
    description = Dict(
        "format" => 1,
        "engine" => "flux",
        "variant" => as_dict(run.variant),
        "settings" => Dict(pair for pair in pairs(run.settings) if !(first(pair) in (:device, :tf32)) && !(pair in (:on_nonfinite => "stop", :schedule => "constant"))),
        "data" => merge(run.data, (; run.classes, channels=c, height=h, width=w)),
        "versions" => Dict("photoflux" => string(pkgversion(PhotoFlux)), "julia" => string(VERSION),
            "flux" => string(pkgversion(Flux)), device_entry(run.settings)...),
        "kept_epoch" => run.kept_epoch,
        "ended" => run.ended,
        "initial" => run.initial,
        "seconds" => sum(row -> row.seconds, run.history; init=0.0),
    )
    isempty(run.notes) || (description["notes"] = run.notes)
    run.backbone === nothing || (description["backbone"] = backbone_entry(run))
    replace_file(io -> dispatch_barrier(JSON.print, io, description, 2), joinpath(folder, "run.json"))
    # Files that Python derived from an earlier run's weights are out of date.
    derived = ("logits.safetensors", "reference.safetensors", "report.html", "calibration.png")
    foreach(name -> rm(joinpath(folder, name); force=true), derived)
    run.ended === :interrupted || remove_checkpoints(joinpath(folder, CHECKPOINTS))
    return folder
end

# What processes that are gone left there is removed and does not count.
is_without_files(folder) = (sweep(folder); readdir(folder) ⊆ [CHECKPOINTS])

# Where the run was trained, as Python writes it; nothing of a CPU.
device_entry(settings) = haskey(settings, :device) ? ["device" => settings.device * (settings.tf32 ? ", TF32" : "")] : Pair{String,String}[]

function device_from(d)
    text = get(get(d, "versions", Dict()), "device", nothing)
    return text === nothing ? (;) : (; device=String(first(split(text, (' ', ',')))), tf32=endswith(text, ", TF32"))
end

# A backbone of the cache is found there again; another goes with the run.
function write_backbone(folder, backbone)
    file, target = backbone === nothing ? nothing : backbone.file, joinpath(folder, BACKBONE_FILE)
    file === nothing && return rm(target; force=true)
    return ispath(target) && samefile(file, target) ? target : replace_file(io -> write_array(io, read(file)), target)
end

# With proximal steps it says how many features have a weight that is not 0.
function backbone_entry(run::Run)
    run.variant.proximal || return run.backbone.entry
    weight = run.model[first(kernels(layers(run)))].weight
    return merge(run.backbone.entry, Dict("remaining" => count(any(!iszero, weight; dims=1))))
end

function weights_metadata(run::Run)
    return Dict(
        "variant" => run.variant.name,
        "architecture" => run.variant.architecture,
        "classes" => string(length(run.classes)),
        "input" => join(reverse(input_of(layers(run))), ','),
    )
end

"""
    load_run(folder)

Read a run that Julia or Python wrote. No code from it is executed. Its backbone, where it has one, is loaded from PhotoFlux's cache, or
from the run's folder if it was fine-tuned.

# Arguments
- `folder::AbstractString`

# Returns
- [`Run`](@ref)

# Throws
- `ArgumentError`: `folder` is not a run, or a file in it cannot be read; or its backbone is not there, is another, or one that only
  Python computes.
- `DimensionMismatch`: the weights are those of another variant.
"""
function load_run(folder::AbstractString)
    path = joinpath(folder, "run.json")
    isfile(path) || throw(ArgumentError("$folder is not a run: it has no run.json."))
    d = json_object(path)
    version = get(d, "format", nothing)
    version == 1 || throw(ArgumentError("$folder: run format $(first(repr(version), 100)); this PhotoFlux reads 1."))
    return dispatch_barrier(of_file, () -> run_of(folder, d), path)::Run
end

# Of images, and of how many features.
const MAX_SIDE = 1_000_000
# More than any run has; Julia compiles for each other number of fields.
const MAX_FIELDS = 32

function run_of(folder, d)
    v, data = Variant(d["variant"]), d["data"]
    input = (Int(data["width"]), Int(data["height"]), Int(data["channels"]))
    all(n -> 1 <= n <= MAX_SIDE, input) || throw(ArgumentError("$folder: its images are $(join(input, '×')); expected 1 to $MAX_SIDE each."))
    settings = d["settings"]
    length(settings) <= MAX_FIELDS || throw(ArgumentError("$folder: it has $(length(settings)) settings."))
    entry = get(d, "backbone", nothing)
    backbone = entry === nothing ? nothing : dispatch_barrier(backbone_from, folder, entry, input)::RunBackbone
    list = layers(v, head_input(input, backbone), length(data["classes"]))
    model = load_model(joinpath(folder, "weights.safetensors"), list)
    settings = (; on_nonfinite="stop", schedule="constant", (Symbol(k) => value for (k, value) in settings)..., device_from(d)...)
    names = (; name=String(data["name"]), fingerprint=String(data["fingerprint"]), dispatch_barrier(about_of, data)...)
    history = read_history(joinpath(folder, "history.csv"))
    origin = get(d, "initial", nothing)
    initial = origin === nothing ? nothing : (; path=origin["path"], fingerprint=origin["fingerprint"])
    return Run(v, model, history, d["kept_epoch"], Symbol(d["ended"]), input, Vector{String}(data["classes"]), settings,
        names, initial, read_seen(folder), backbone, Vector{String}(get(d, "notes", String[])))
end

function read_history(path)
    lines = isfile(path) ? readlines(path) : String[]
    length(lines) < 2 && return NamedTuple[]
    columns = split(lines[1], ','; limit=MAX_FIELDS)
    columns == ["epoch"; HISTORY_COLUMNS] || throw(ArgumentError("$path must have the columns epoch, $(join(HISTORY_COLUMNS, ", "))."))
    names = Tuple(Symbol.(columns))
    number(name, text) = name === :epoch ? parse(Int, text) : parse(Float64, text)
    return NamedTuple[NamedTuple{names}(number.(names, Tuple(split(line, ','; limit=MAX_FIELDS)))) for line in lines[2:end]]
end

function predict(run::Run, images::AbstractArray{<:Real,4}; device=CPUDevice(), kwargs...)
    model = on_device(open_device(device), checked(run, size(images)[1:3]))
    run.backbone === nothing && return predict(model, images; kwargs...)
    features = backbone_features(run.backbone.network, images; kwargs...)
    return predict(model, reshape(features, 1, 1, size(features)...); kwargs...)
end

evaluate(run::Run, folder::AbstractString; kwargs...) =
    evaluate(run, open_dataset(folder; seed=get(run.data, :seed, run.settings.seed)); kwargs...)

function evaluate(run::Run, data::PreparedDataset; part::Symbol=:test, batch_size::Integer=32, device=CPUDevice())
    model = on_device(open_device(device), checked(run, image_shape(data)))
    chosen = unseen(run, data, part)
    of_model, numbers = run.backbone === nothing ? (data, chosen) : (features_dataset(run.backbone, data, chosen), collect(eachindex(chosen)))
    result = evaluate_images(model, of_model, run.variant, part, numbers, batch_size)
    return (; result..., images=length(chosen), left_out=length(indices(data, part)) - length(chosen))
end

# The images of a part that are scored: those that the run has not seen in training or validation. The training and validation
# parts of its own dataset can be scored too, except for images to which its initial weights had been fitted.
function unseen(run, data, part)
    chosen = indices(data, part)
    own = data.fingerprint == run.data.fingerprint
    own && (part === :train || run.initial === nothing || run.ended === :adopted) && return chosen
    seen = known!(run.seen)
    known = Set(own && part === :validation ? seen.train : [seen.train; seen.validation])
    new = isempty(known) ? chosen : chosen[[!(id in known) for id in identities(data, chosen)]]
    left_out = length(chosen) - length(new)
    if left_out > 0
        isempty(new) && throw(ArgumentError("The run has seen all $left_out images of the part :$part of $(data.name) in " *
                                            "training or validation, so there is nothing to score. Give other images."))
        @info "$left_out of $(length(chosen)) images were left out: the model has seen them in training or validation."
    end
    if !own && !isempty(seen.unknown)
        @warn "It is not known which images the model has seen, so some of these may be among them: $(seen.unknown)."
    end
    return new
end

function checked(run::Run, input)
    input == run.input ||
        throw(DimensionMismatch("The run's images are $(join(run.input, '×')) (W×H×C); received: $(join(input, '×'))."))
    return run.model
end
