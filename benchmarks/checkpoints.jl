# What a checkpoint takes: its size, the seconds until it is on the disk, and when the next may be written, so that all take 2 % at most.
#
#   julia --threads=auto benchmarks/checkpoints.jl
using PhotoFlux, Printf
using PhotoFlux: CHECKPOINT_SHARE, Checkpoints, FitState, KerasAdam, Optimisers, checkpoint_files, should_stop!, write_checkpoint!

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
