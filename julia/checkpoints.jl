# Checkpoints: the files from which a fit that was ended goes on, and equals one that was not, bit for bit.

const CHECKPOINT_FORMAT = "photoflux-checkpoint-2"
const CHECKPOINTS = "checkpoints"  # the folder in a run's
# If the newest is damaged, the one before serves.
const KEPT_CHECKPOINTS = 2
# How much of a fit's time they may take.
const CHECKPOINT_SHARE = 0.02
# What the first is expected to take, until one was measured: seconds, and bytes a second.
const EXPECTED_COST, EXPECTED_RATE = 0.005, 1.5e8
const CHECKSUM_BLOCK = 2^20  # bytes

"""
    Checkpoints(folder = ""; resume = false, minutes = 10)

Where and how often a fit writes checkpoints; nowhere without a folder.

One is written after each epoch, and after a batch when the last was `minutes` ago; but not where all of them would take more than 2 % of the
fit's time, as measured. With `minutes` 0 one is written after each batch, whatever that takes.

# Arguments
- `folder::AbstractString`: is made with the first checkpoint.
- `resume::Bool`: whether the fit goes on from the newest checkpoint in it.
- `minutes::Real`: 0 or more.
"""
mutable struct Checkpoints
    const folder::String
    const resume::Bool
    const seconds::Float64
    last::Float64   # when the last was written
    cost::Float64   # seconds that it took
    made::Bool      # whether the folder was there: if it has gone since, as a share does, it is not made elsewhere
    failed::Bool
end

function Checkpoints(folder::AbstractString=""; resume::Bool=false, minutes::Real=10)
    minutes isa Bool || isfinite(minutes) && minutes >= 0 ||
        throw(ArgumentError("`checkpoint_minutes` must be a finite number, 0 or more; received: $minutes."))
    resume && folder == "" && throw(ArgumentError("`resume` needs `checkpoints`, the folder with the checkpoints of the fit."))
    return Checkpoints(folder, resume, 60.0 * minutes, time(), NaN, isdir(folder), false)
end

# Whether one is to be written now.
function is_due(checkpoints::Checkpoints, @nospecialize(model), epoch_is_over)
    (; folder, seconds) = checkpoints
    (folder == "" || seconds == 0) && return folder != ""
    elapsed = time() - checkpoints.last
    epoch_is_over || elapsed >= seconds || return false
    isnan(checkpoints.cost) && (checkpoints.cost = EXPECTED_COST + 5 * sum(sizeof, Flux.trainables(model)) / EXPECTED_RATE)
    return elapsed * CHECKPOINT_SHARE >= checkpoints.cost
end

# The files in a folder, newest first.
function checkpoint_files(folder)
    found = Pair{NTuple{2,Int},String}[]
    for name in (isdir(folder) ? readdir(folder) : String[])
        place = match(r"^epoch-(\d{6,9})-batch-(\d{6,9})\.safetensors$", name)
        place === nothing || push!(found, (parse(Int, place[1]), parse(Int, place[2])) => joinpath(folder, name))
    end
    return last.(sort!(found; by=first, rev=true))
end

checkpoint_name(epoch, batch) = string("epoch-", lpad(epoch, 6, '0'), "-batch-", lpad(batch, 6, '0'), ".safetensors")

# Writes one. Where that fails the fit goes on, and the note says so once.
function write_checkpoint!(checkpoints::Checkpoints, state::FitState, fit, @nospecialize(model), @nospecialize(optimiser), on_note; only=false)
    began = time()
    path = joinpath(checkpoints.folder, checkpoint_name(state.epoch, state.sums.batch))
    try
        checkpoints.made || mkpath(checkpoints.folder)
        checkpoints.made = true
        arrays = state_arrays(state, model, optimiser)
        fit_text, state_text = json_text(fit), json_text(state_values(state, optimiser))
        metadata = Dict("format" => CHECKPOINT_FORMAT, "engine" => "flux", "fit" => fit_text, "state" => state_text,
            "crc32c" => checksum(fit_text, state_text, arrays))
        write_arrays(path, arrays; metadata)
        kept = only ? [path] : Iterators.take(checkpoint_files(checkpoints.folder), KEPT_CHECKPOINTS)
        foreach(file -> file in kept || rm(file; force=true), checkpoint_files(checkpoints.folder))
        checkpoints.failed = false
    catch err
        err isa Union{SystemError,Base.IOError} || rethrow()
        reason = first(split(sprint(showerror, err), '\n'))
        checkpoints.failed || add_note!(state, on_note, "A checkpoint could not be written, and the fit went on without: $reason")
        checkpoints.failed = true
    end
    checkpoints.last = time()
    checkpoints.cost = checkpoints.last - began
    return nothing
end

function add_note!(state::FitState, on_note, text)
    push!(state.notes, text)
    on_note(text)
    return nothing
end

# Removes the checkpoints of a fit whose run is in its place.
remove_checkpoints(folder) = rm(folder; recursive=true, force=true)

json_text(value) = dispatch_barrier(JSON.json, value)::String

# Weights, both moments, and the last good and the best weights where they are not those of another name already.
function state_arrays(state::FitState, @nospecialize(model), @nospecialize(optimiser))
    pairs = Pair{String,Array{Float32}}[]
    leaves, weights = adam_leaves(optimiser), Flux.trainables(model)
    for ((name, leaf), w) in zip(leaves, weights)
        m, v, _ = leaf.state
        push!(pairs, "w.$name" => in_memory(w), "m.$name" => in_memory(m), "v.$name" => in_memory(v))
    end
    append!(pairs, ("w.$name" => in_memory(array) for (name, array) in zip(statistics_names(model), statistics(model))))
    put(kind, kept) = append!(pairs, ("$kind.$name" => in_memory(w) for (name, w) in zip(fitted_names(leaves, model), kept)))
    state.sums.batch == 0 || put("good", state.good)
    best_is_apart(state) && put("best", state.stopping.best_weights)
    return pairs
end

# In the order of `fitted_arrays`.
fitted_names(leaves, @nospecialize(model)) = append!(String[], first.(leaves), statistics_names(model))
statistics_names(@nospecialize(model)) = ["statistics.$i" for i in eachindex(statistics(model))]

function best_is_apart((; stopping, history)::FitState)
    return stopping !== nothing && stopping.best_weights !== nothing && stopping.best_epoch != length(history)
end

# They are written before the next batch changes them, so that those of a CPU need no copy.
in_memory(array::Array) = array
in_memory(array) = Array(array)

# Floats go by their bits.
bits(x::Float64) = string(reinterpret(UInt64, x); base=16, pad=16)
from_bits(text) = reinterpret(Float64, parse(UInt64, text; base=16))

function state_values(state::FitState, @nospecialize(optimiser))
    (; sums, stopping) = state
    return Dict{String,Any}(
        "epoch" => state.epoch, "batch" => sums.batch, "images" => sums.images, "hits" => sums.hits,
        "loss" => bits(sums.loss), "penalty" => bits(sums.penalty), "seconds" => bits(time() - state.began),
        "dropout" => [string(word; base=16) for word in state.dropout],
        "steps" => [last(leaf.state) for (_, leaf) in adam_leaves(optimiser)],
        "learning_rate" => bits(state.learning_rate), "halvings" => state.halvings,
        "ended" => state.ended in (nothing, :interrupted) ? nothing : string(state.ended),
        "columns" => isempty(state.history) ? String[] : collect(string.(keys(first(state.history)))[2:end]),
        "history" => [bits.(Float64.(collect(values(row))[2:end])) for row in state.history],
        "best" => stopping === nothing || stopping.best_weights === nothing ? nothing :
                  Dict("epoch" => stopping.best_epoch, "total" => bits(stopping.best)),
        "notes" => state.notes,
    )
end

# The crc32c of the two texts and, in the order of their names, the name of each array and the crc32c of each of its blocks. It finds what a disk
# has damaged, at the speed of memory; whoever forges a checkpoint can forge the sum.
function checksum(fit_text, state_text, pairs)
    parts = IOBuffer()
    write(parts, fit_text, state_text)
    for (name, array) in sort(pairs; by=first)
        write(parts, name, htol.(block_checksums(little_endian(array))))
    end
    return string(crc32c(take!(parts)); base=16, pad=8)
end

function block_checksums(array)
    GC.@preserve array begin
        bytes = unsafe_wrap(Array, Ptr{UInt8}(pointer(array)), sizeof(array))
        blocks = collect(Iterators.partition(eachindex(bytes), CHECKSUM_BLOCK))
        sums = Vector{UInt32}(undef, length(blocks))
        Threads.@threads for i in eachindex(blocks)
            sums[i] = crc32c(view(bytes, blocks[i]))
        end
        return sums
    end
end

# What must be the same for a fit to go on from a checkpoint, as a table of texts.
function fit_description(v::Variant, settings, data, initial; more...)
    taken = ("epochs", "batch_size", "learning_rate", "balance", "made_for", "image_size")
    described = Dict{String,String}("variant $name" => plain_text(value) for (name, value) in as_dict(v) if !(name in taken))
    foreach(pair -> described[replace(string(first(pair)), '_' => ' ')] = plain_text(last(pair)), [collect(pairs(settings)); collect(pairs(more))])
    haskey(described, "variant chain") && (described["variant chain"] = bytes2hex(sha256(described["variant chain"]))[1:16])
    described["engine"] = "flux"
    described["images"] = string(length(data))
    described["classes"] = join(data.classes, ", ")
    described["dataset"] = data.fingerprint
    described["initial weights"] = initial === nothing ? "drawn from the seed" : initial.fingerprint
    return described
end

plain_text(value) = string(value)
plain_text(value::AbstractDict) = isempty(value) ? "none" : join(sort!(["$key $(plain_text(x))" for (key, x) in value]), ", ")
plain_text(value::AbstractVector) = join(plain_text.(value), ", ")

"""
    resume!(checkpoints, state, fit, model, optimiser, on_note)

Put a fit where the newest checkpoint that can be read was written.

# Throws
- `ArgumentError`: there is none, or it is of another fit (a table shows what differs); or there are some and the fit is not to resume.
"""
function resume!(checkpoints::Checkpoints, state::FitState, fit, @nospecialize(model), @nospecialize(optimiser), on_note)
    (; folder, resume) = checkpoints
    files = folder == "" ? String[] : checkpoint_files(folder)
    if !resume
        isempty(files) || throw(ArgumentError("$folder has the checkpoints of an unfinished fit. Go on from them with " *
                                              "`resume=true`, or remove the folder to begin again."))
        return nothing
    end
    isempty(files) && throw(ArgumentError("There is nothing to resume: $folder has no checkpoint."))
    damaged = String[]
    for path in files
        values, arrays, described = try
            read_checkpoint(path)
        catch err
            err isa Union{OtherFormat,ArgumentError,SystemError,EOFError,KeyError} || rethrow()
            push!(damaged, "$(basename(path)) is $(err isa OtherFormat ? "of another PhotoFlux" : "damaged") ($(sprint(showerror, err)))")
            continue
        end
        check_same_fit(path, described, fit)
        problem = state_problem(values, arrays, state, model, optimiser)
        if problem !== nothing
            push!(damaged, "$(basename(path)) is damaged ($problem)")
            continue
        end
        set_state!(state, values, arrays, model, optimiser)
        foreach(on_note, state.notes)
        isempty(damaged) || add_note!(state, on_note,
            "The fit went on from the checkpoint $(basename(path)), because $(join(damaged, " and ")).")
        return nothing
    end
    throw(ArgumentError("No checkpoint in $folder can be read: $(join(damaged, "; ")). Remove the folder to begin again."))
end

# Of a checkpoint that is whole, and not of this version.
struct OtherFormat <: Exception
    found::String
end

Base.showerror(io::IO, err::OtherFormat) = print(io, "its format is ", err.found, ", and this one reads ", CHECKPOINT_FORMAT)

function read_checkpoint(path)
    arrays, metadata = read_tensors(path, Float32, "a checkpoint")
    format = get(metadata, "format", "")
    startswith(format, "photoflux-checkpoint-") || throw(ArgumentError("$path is not a checkpoint of PhotoFlux."))
    format == CHECKPOINT_FORMAT || throw(OtherFormat(format))
    found = checksum(metadata["fit"], metadata["state"], collect(arrays))
    found == get(metadata, "crc32c", "") || throw(ArgumentError("its content does not have the crc32c that it says"))
    parsed(name) = parse_json(metadata[name])
    return parsed("state"), arrays, parsed("fit")
end

function check_same_fit(path, described, fit)
    # Checkpoints from before there were schedules say nothing of one.
    described = merge(Dict{String,Any}("schedule" => "constant"), described)
    rows = [(name, string(get(described, name, "–")), get(fit, name, "–")) for name in sort!(collect(union(keys(described), keys(fit))))]
    filter!(((_, found, given),) -> found != given, rows)
    isempty(rows) && return nothing
    table = [("setting", "checkpoint", "given"); rows]
    widths = [maximum(row -> textwidth(row[i]), table) for i in 1:2]
    lines = [rstrip("  $(rpad(row[1], widths[1]))   $(rpad(row[2], widths[2]))   $(row[3])") for row in table]
    throw(ArgumentError("$path is of a fit with other settings:\n" * join(lines, '\n') *
                        "\nGive those of the checkpoint, or remove the folder to begin again."))
end

# What of a state is not as `state_values` and `state_arrays` write it, in words; nothing where all is.
function state_problem(values, arrays, state::FitState, @nospecialize(model), @nospecialize(optimiser))
    try
        check_state(values, arrays, state, model, optimiser)
        return nothing
    catch err
        err isa InterruptException && rethrow()
        return first(first(split(sprint(showerror, err), '\n')), 200)
    end
end

const HISTORY_COLUMNS = ["seconds", "train_loss", "train_penalty", "train_total", "train_accuracy", "validation_loss", "validation_penalty",
    "validation_total", "validation_accuracy"]

function check_state(values, arrays, state::FitState, @nospecialize(model), @nospecialize(optimiser))
    expect(holds, what) = holds || throw(ArgumentError("its $what is not that of a fit"))
    whole(n, least=0) = n isa Integer && !(n isa Bool) && least <= n <= typemax(Int32)
    leaves = adam_leaves(optimiser)
    history, columns, best = values["history"], values["columns"], values["best"]
    expect(all(name -> values[name] isa AbstractVector, ("history", "columns", "dropout", "steps", "notes")), "list")
    expect(all(whole, (values["batch"], values["images"], values["hits"])) && whole(values["epoch"], 1), "position")
    expect(columns == HISTORY_COLUMNS || isempty(columns) && isempty(history), "history")
    expect(all(row -> length(row) == length(columns), history) && values["epoch"] == length(history) + 1, "history")
    foreach(row -> from_bits.(row), history)
    foreach(name -> from_bits(values[name]), ("loss", "penalty", "seconds", "learning_rate"))
    parse.(UInt64, values["dropout"]; base=16)
    expect(whole(values["halvings"]), "number of halvings")
    expect(length(values["steps"]) == length(leaves) && all(n -> n isa Integer && 0 <= n <= typemax(Int), values["steps"]), "step of Adam")
    expect(values["ended"] in (nothing, "epochs", "early_stopping", "stopped", "diverged"), "end")
    expect(all(note -> note isa AbstractString, values["notes"]), "list of notes")
    kinds = ["w", "m", "v"]
    values["batch"] == 0 || push!(kinds, "good")
    if best !== nothing
        expect(state.stopping !== nothing && whole(best["epoch"]) && best["epoch"] <= length(history), "best epoch")
        from_bits(best["total"])
        best["epoch"] == length(history) || push!(kinds, "best")
    end
    for (name, w) in zip(fitted_names(leaves, model), fitted_arrays(model)), kind in kinds
        kind in ("m", "v") && startswith(name, "statistics.") && continue
        array = get(arrays, "$kind.$name", nothing)
        expect(array !== nothing && size(array) == size(w), "array $kind.$name")
    end
end

function set_state!(state::FitState, values, arrays, @nospecialize(model), @nospecialize(optimiser))
    leaves = adam_leaves(optimiser)
    function put(kind, targets)
        for (name, target) in zip(fitted_names(leaves, model), targets)
            copyto!(target, arrays["$kind.$name"])
        end
    end
    put("w", fitted_arrays(model))
    put("m", (leaf.state[1] for (_, leaf) in leaves))
    put("v", (leaf.state[2] for (_, leaf) in leaves))
    state.learning_rate = from_bits(values["learning_rate"])
    for ((_, leaf), steps) in zip(leaves, values["steps"])
        m, v, _ = leaf.state
        leaf.rule, leaf.state = KerasAdam(state.learning_rate, leaf.rule.beta, leaf.rule.epsilon), (m, v, Int(steps))
    end
    state.epoch, state.halvings = values["epoch"], values["halvings"]
    state.sums = Sums(values["batch"], values["images"], values["hits"], from_bits(values["loss"]), from_bits(values["penalty"]))
    state.began = time() - from_bits(values["seconds"])
    state.dropout = parse.(UInt64, values["dropout"]; base=16)
    state.ended = values["ended"] === nothing ? nothing : Symbol(values["ended"])
    names = (:epoch, Symbol.(values["columns"])...)
    append!(state.history, (NamedTuple{names}((epoch, from_bits.(row)...)) for (epoch, row) in enumerate(values["history"])))
    append!(state.notes, values["notes"])
    put(state.sums.batch == 0 ? "w" : "good", state.good)
    (; stopping) = state
    if values["best"] !== nothing
        stopping.best, stopping.best_epoch = from_bits(values["best"]["total"]), values["best"]["epoch"]
        stopping.best_weights = copy_weights!(nothing, model)
        best_is_apart(state) ? put("best", stopping.best_weights) : foreach(copyto!, stopping.best_weights, state.good)
    end
    return nothing
end
