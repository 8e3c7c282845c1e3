# What a checkpoint takes: its size, the seconds until it is on the disk, and when the next may be written, so that all take 2 % at most.
# Then what they take of whole fits, which are made with and without them in turn.
#
#   julia --threads=auto benchmarks/checkpoints.jl
using PhotoFlux, Printf
using PhotoFlux: CHECKPOINT_SHARE, CPUDevice, Checkpoints, FitState, Hooks, KerasAdam, Optimisers, UserFunction, checked_settings, checkpoint_files, fit,
    should_stop!, write_checkpoint!

const SHAPES = ("baseline" => (180, 180, 3), "dropout_early_stopping" => (180, 180, 3), "mlp" => (32, 32, 3), "dense_dropout" => (28, 28, 1),
    "transfer" => (1, 1, 1280))

println("| variant | size | written in | the next after |\n|---|---|---|---|")
for (name, shape) in SHAPES
    v = variant(name)
    model = build_model(v, shape, 2)
    optimiser = Optimisers.setup(KerasAdam(), model)
    state = FitState(model, 0.001, v.patience)
    # The best weights are those of an epoch before, as they mostly are.
    state.stopping === nothing || should_stop!(state.stopping, 1, 1.0, model)
    mktempdir() do folder
        checkpoints = Checkpoints(folder)
        costs = map(1:4) do epoch
            state.epoch = epoch
            write_checkpoint!(checkpoints, state, Dict{String,String}(), model, optimiser, error)
            checkpoints.cost
        end
        cost = sort(costs[2:end])[2]
        @printf("| `%s`, %s | %.1f MB | %.3f s | %.1f s |\n", name, join(shape, '×'), filesize(first(checkpoint_files(folder))) / 1e6, cost, cost / CHECKPOINT_SHARE)
    end
end

# Name, shape, images and epochs.
const FITS = (("dropout", (48, 48, 3), 400, 30), ("mlp", (32, 32, 3), 2000, 40), ("dense_dropout", (28, 28, 1), 4000, 100))
const PAIRS = 3

# The seconds of a fit, of its checkpoints, and how many there were.
function fitted(v, data, epochs, folder)
    checkpoints, taken, written = Checkpoints(folder), 0.0, 0
    last = checkpoints.last
    function look()
        checkpoints.last == last && return nothing
        last, taken, written = checkpoints.last, taken + checkpoints.cost, written + 1
        return nothing
    end
    settings = checked_settings(data; epochs, batch_size=32, v.learning_rate, seed=1, balance="none", on_nonfinite="stop")
    began = time()
    fit(v, data, settings, nothing, checkpoints, UserFunction(_ -> (look(); false)), UserFunction(Returns(nothing)), UserFunction(println), CPUDevice(), UserFunction(Returns(false)), Hooks())
    seconds = time() - began
    look()
    return (; seconds, taken, written)
end

middle(values) = sort(values)[cld(end, 2)]

println("\n| fit | without | with | checkpoints | seconds for them | of the fit |\n|---|---|---|---|---|---|")
for (name, shape, images, epochs) in FITS
    v, split = variant(name), UInt8[mod(i, 5) == 0 for i in 1:images]
    data = PreparedDataset(rand(UInt8, shape..., images), Int32[mod(i, 2) for i in 1:images], split, ["a", "b"], "random", "")
    fitted(v, data, 1, "")
    pairs = [(fitted(v, data, epochs, ""), mktempdir(folder -> fitted(v, data, epochs, folder))) for _ in 1:PAIRS]
    without, with = middle([pair[1].seconds for pair in pairs]), sort(last.(pairs); by=pair -> pair.seconds)[cld(end, 2)]
    @printf("| `%s`, %s, %d epochs | %.1f s | %.1f s | %d | %.2f s | %.1f %% |\n", name, join(shape, '×'), epochs, without, with.seconds,
        with.written, with.taken, 100with.taken / with.seconds)
end
