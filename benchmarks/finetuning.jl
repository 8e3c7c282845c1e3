# Times fine-tuning: what the frozen blocks make of an image, and a training step of the others, in batches of 32.
#
#     julia --threads=auto benchmarks/finetuning.jl BACKBONE [UNFREEZE …]
#
# BACKBONE is a name in the cache or a .safetensors file; UNFREEZE are numbers of blocks (default: 1 2 6).
using PhotoFlux
using PhotoFlux: Flux, Optimisers, Tail, Xoshiro, loss_of, targets, train_step!

const BATCH, ROUNDS = 32, 5

# Milliseconds an image of the fastest round; the first compiles.
best(f) = 1000 * minimum(_ -> @elapsed(f()), 0:ROUNDS) / BATCH

function times(source, unfreeze)
    chain = load_backbone(source)
    width, height = chain[:scale].size
    frozen = count(startswith("block"), string.(keys(chain))) - unfreeze
    labels = Int32.(mod.(1:BATCH, 2))
    data = PreparedDataset(rand(Xoshiro(1), UInt8, width, height, 3, BATCH), labels, zeros(UInt8, BATCH), ["a", "b"], "noise", "")
    mktempdir() do folder
        compute() = PhotoFlux.frozen_activations(chain, frozen, data, folder, Returns(false))
        found = compute()
        tail = Tail(Flux.Chain(; (name => chain[name] for name in keys(chain)[(3 + frozen):(end - 1)])...), found.size)
        features = length(chain[:top].bias)
        model = Flux.Chain(; tail, standardise=PhotoFlux.Standardise(features), flatten=Flux.flatten, output=Flux.Dense(features => 1))
        optimiser, buffers = Optimisers.setup(KerasAdam(1e-4), model), PhotoFlux.Buffers()
        x, y = Array(found.data.images), targets(labels, 2)
        step() = train_step!(model, optimiser, loss_of("cross_entropy", 2), [], x, y, ones(Float32, BATCH), buffers)
        return best(compute), best(step)
    end
end

source, blocks = first(ARGS), length(ARGS) > 1 ? parse.(Int, ARGS[2:end]) : [1, 2, 6]
println("$(Threads.nthreads()) threads; milliseconds an image")
for unfreeze in blocks
    frozen, step = times(source, unfreeze)
    println("unfreeze $unfreeze: frozen blocks, once, $(round(frozen; digits=1)); a training step $(round(step; digits=1))")
end
