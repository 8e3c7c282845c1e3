# The PhotoFlux side of run.py.
using PhotoFlux: PhotoFlux, Chain, Optimisers, build_model, evaluate, open_dataset, train, variant

include("serve.jl")

function step(v, input, batch, classes)
    model = build_model(v, input, classes; rng=PhotoFlux.Xoshiro(1))
    PhotoFlux.start_dropout!(model, 1, 1)
    optimiser = Optimisers.setup(PhotoFlux.KerasAdam(v.learning_rate), model)
    penalties = PhotoFlux.kernel_penalties(PhotoFlux.layers(v, input, classes))
    x, labels = material(input, batch, classes)
    y, ones_, buffers = PhotoFlux.targets(labels, classes), ones(Float32, batch), PhotoFlux.Buffers()
    loss = PhotoFlux.loss_of(v.loss, classes)
    return () -> PhotoFlux.train_step!(model, optimiser, loss, penalties, x, y, ones_, buffers).loss
end

function prediction(v, input, batch, classes)
    model = build_model(v, input, classes; rng=PhotoFlux.Xoshiro(1))
    x, _ = material(input, batch, classes)
    return () -> sum(PhotoFlux.logits(model, x; batch_size=batch))
end

epoch(v, folder) = (data = open_dataset(folder); () -> last(train(v, data; epochs=1).history).validation_loss)

# Of an epoch, the share of time in which training waited for images.
function waiting(v, folder)
    data, waited = open_dataset(folder), 0.0
    seconds = @elapsed train(v, data; epochs=1, on_batch=batch -> (waited += batch.waited; false))
    return waited / seconds
end

# Resident memory after each epoch, MB.
function memory(v, folder, epochs)
    sizes = Float64[]
    train(v, open_dataset(folder); epochs, on_epoch=_ -> push!(sizes, resident("VmRSS")))
    return join(sizes, ' ')
end

# Milliseconds of each layer forward and backward, Adam included: the least of ten steps.
function profile(v, input, batch, classes)
    model = build_model(v, input, classes; rng=PhotoFlux.Xoshiro(1))
    optimiser = Optimisers.setup(PhotoFlux.KerasAdam(v.learning_rate), model)
    x, labels = material(input, batch, classes)
    y, buffers, stages = PhotoFlux.targets(labels, classes), PhotoFlux.Buffers(), PhotoFlux.stages(model)
    sink = PhotoFlux.UpdateSink(PhotoFlux.kernel_penalties(PhotoFlux.layers(v, input, classes)), optimiser)
    forward, backward = fill(Inf, length(stages)), fill(Inf, length(stages))
    for _ in 1:10
        values = Any[x]
        for (i, (name, layer)) in enumerate(stages)
            seconds = @elapsed push!(values, PhotoFlux.forward!(layer, last(values), buffers, name))
            forward[i] = min(forward[i], seconds)
        end
        d = PhotoFlux.data_loss_gradient(PhotoFlux.loss_of(v.loss, classes), last(values), y, ones(Float32, 1, batch))
        for i in length(stages):-1:2
            name, layer = stages[i]
            seconds = @elapsed d = PhotoFlux.backward!(layer, values[i], values[i + 1], d, buffers, name, i > 2, sink)
            backward[i] = min(backward[i], seconds)
        end
    end
    milliseconds(t) = isfinite(t) ? string(round(1000t; digits=1)) : "0"
    return join(("$name:$(milliseconds(f))+$(milliseconds(b))" for ((name, _), f, b) in zip(stages, forward, backward)), ' ')
end

# Looked up, so that a first step does not wait until every other kind is compiled.
const KINDS = Dict{String,Any}(
    "step" => (v, rest) -> step(v, shape(rest)...),
    "predict" => (v, rest) -> prediction(v, shape(rest)...),
    "epoch" => (v, rest) -> epoch(v, only(rest)),
    "waiting" => (v, rest) -> (() -> waiting(v, only(rest))),
    "memory" => (v, rest) -> (() -> memory(v, first(rest), parse(Int, last(rest)))),
    "profile" => (v, rest) -> (() -> PhotoFlux.with_one_blas_thread(() -> profile(v, shape(rest)...))),
    "gemm" => (_, _) -> gemm(),
    "copy" => (_, _) -> copying(),
)

measure(kind, name, rest) = KINDS[kind](variant(name), rest)

# 2048³ multiplications and additions, and 512 MiB read and written.
function gemm()
    a, b, c = (rand(Float32, 2048, 2048) for _ in 1:3)
    return () -> PhotoFlux.BLAS.gemm!('N', 'N', 1.0f0, a, b, 0.0f0, c)[1]
end

function copying()
    a = ones(Float32, 2^27)
    b = similar(a)
    return function ()
        Threads.@threads :static for part in 1:Threads.nthreads()
            n = length(a) ÷ Threads.nthreads()
            copyto!(b, (part - 1) * n + 1, a, (part - 1) * n + 1, n)
        end
        return b[1]
    end
end

serve(measure)
