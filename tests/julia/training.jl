using PhotoFlux: DivergedError, EarlyStopping, kernel_penalties, loss_of, should_stop!, start_dropout!, targets, total_gradient
using PhotoFlux.Flux: Zygote

quick(v, data=data_of(v); epochs=2, kwargs...) = train(v, data; epochs, batch_size=7, kwargs...)

@testset "the loss falls, $(v.name), $classes classes" for v in variants(), classes in (2, 3)
    data = data_of(v; classes)
    rate = v.architecture == "dense" ? 0.01 : 0.003
    run = train(v, data; epochs=8, batch_size=8, learning_rate=rate)
    @test run.history[end].train_total < run.history[1].train_total
    @test all(array -> eltype(array) == Float32, Flux.trainables(run.model))
    @test all(row -> row.train_total ≈ row.train_loss + row.train_penalty, run.history)
    @test (run.history[1].train_penalty > 0) == !isempty(v.penalty)
    # In batches of another size, Float32 sums come out in another order.
    @test evaluate(run, data; part=:validation).total ≈ run.history[run.kept_epoch].validation_total rtol = 1e-6
end

@testset "same seed, same run, bit for bit, $(v.name)" for v in variants()
    balance = v.architecture == "transfer" ? "weights" : "augment"
    runs = [quick(v; seed, balance) for seed in (1, 1, 2)]
    @test arrays(runs[1].model) == arrays(runs[2].model)
    @test arrays(runs[1].model) != arrays(runs[3].model)
    timeless(run) = [Base.structdiff(row, (; seconds=0)) for row in run.history]
    @test timeless(runs[1]) == timeless(runs[2])
end

# The gradient of the total, penalty included, against Zygote's through the whole written-out loss; every weight's
# gradient is a sum over a batch of 5 and at most 128·30 places.
@testset "gradient of the total, $(v.name)" for v in variants()
    model = PhotoFlux.inference(small_model(v))
    # A head that starts at zero would stand on the kinks of the loss as it is written below.
    iszero(model[:output].weight) && copyto!(model[:output].weight, Flux.glorot_uniform(Xoshiro(1), size(model[:output].weight)...))
    x, y = pixels(v, 5), targets(Int32[0, 1, 1, 0, 1], 2)
    result, gradient = total_gradient(model, loss_of("cross_entropy", 2), kernel_penalties(layers_of(v)), x, y, ones(Float32, 5))
    # What is left to a proximal step has no gradient.
    function written(m; proximal=false)
        z = m(x)
        loss = sum(max.(z, 0) .- z .* y .+ log1p.(exp.(-abs.(z)))) / 5
        for name in keys(m)
            group = startswith(string(name), "conv") ? "conv" : startswith(string(name), "dense") ? "hidden" : string(name)
            haskey(v.penalty, group) || continue
            λ₁, λ₂ = PhotoFlux.coefficients(v.penalty[group])
            w = m[name].weight
            loss += !proximal * λ₁ * sum(abs, w) + λ₂ * sum(w .^ 2)
        end
        return loss
    end
    expected = only(Zygote.gradient(m -> written(m; v.proximal), model))
    @test result.loss + result.penalty ≈ written(model) rtol = 1e-5
    for name in PhotoFlux.kernels(layers_of(v)), field in (:weight, :bias)
        a, b = getfield(gradient.layers[name], field), getfield(expected.layers[name], field)
        @test a ≈ b rtol = 1e-4 atol = 1e-7
    end
end

@testset "the last short batch is used" begin
    v = variant("dense_l2")
    data = data_of(v)
    seen = Int[]
    train(v, data; epochs=1, batch_size=9, on_batch=p -> (push!(seen, p.images); false))
    @test sum(seen) == length(indices(data, :train)) == 32
    @test seen == [9, 9, 9, 5]
end

@testset "progress" begin
    v = variant("dense_l2")
    seen, rows = [], []
    run = quick(v; on_batch=p -> (push!(seen, p); false), on_epoch=row -> push!(rows, row))
    @test rows == run.history
    @test [(p.epoch, p.batch) for p in seen] == [(e, b) for e in 1:2 for b in 1:5]
    @test all(p -> p.epochs == 2 && p.batches == 5, seen)
    @test seen[5].loss ≈ run.history[1].train_total
    @test seen[5].accuracy ≈ run.history[1].train_accuracy
end

# The running means against every step made by hand: same batches, same order, same numbers.
@testset "an epoch's figures are means over its images" begin
    v = variant("l2")
    data = data_of(v)
    run = quick(v, data; epochs=1, learning_rate=1e-30)  # the weights stay
    model = build_model(v, input_of(v), 2; rng=PhotoFlux.derived_rng(42, "weights"))
    initial = evaluate(model, data, v; part=:train)
    row = run.history[1]
    @test row.train_loss ≈ initial.loss rtol = 1e-5
    @test row.train_penalty ≈ initial.penalty rtol = 1e-5
    @test row.train_accuracy ≈ initial.accuracy
end

@testset "dropout is on in training, new in each epoch, whatever mode it was left in" begin
    v = variant("dropout")
    model = Flux.testmode!(small_model(v))
    x = pixels(v, 4)
    draw(epoch) = (start_dropout!(model, 1, epoch); model(x))
    @test draw(1) == draw(1) != draw(2)
    @test draw(1) != PhotoFlux.inference(model)(x)
end

@testset "early stopping" begin
    # As keras.callbacks.EarlyStopping(patience=2): an equal value is no improvement.
    stopping = EarlyStopping(2)
    model = small_model(variant("dense_l2"))
    @test [should_stop!(stopping, e, t, model) for (e, t) in enumerate([3.0, 2.0, 2.0, 1.0, 1.5, 1.0])] == [0, 0, 0, 0, 0, 1]
    @test stopping.best_epoch == 4

    v = variant("early_stopping")
    data = data_of(v)
    for (rate, ended) in ((0.02, nothing), (1e-5, :epochs))
        run = train(v, data; epochs=14, batch_size=8, learning_rate=rate, seed=3)
        totals = [row.validation_total for row in run.history]
        @test run.kept_epoch == argmin(totals)
        # Bit-equal to the kept epoch, also when the epochs ran out first.
        @test evaluate(run, data; part=:validation, batch_size=8).total == totals[run.kept_epoch]
        if run.ended === :early_stopping
            @test length(run.history) == run.kept_epoch + 5
        end
        ended === nothing || @test run.ended === ended
    end
    # Random labels: the validation loss rises as soon as the training images are learnt by heart.
    noise = PreparedDataset(data.images, rand(Xoshiro(1), Int32[0, 1], length(data)), data.split, data.classes, "noise", "")
    stopped = train(v, noise; epochs=30, batch_size=8, learning_rate=0.003)
    @test stopped.ended === :early_stopping
end

@testset "the fit ends at a batch when asked, or interrupted" begin
    v = variant("dense_l2")
    run = quick(v; epochs=5, on_batch=p -> p.epoch == 3 && p.batch == 2)
    @test run.ended === :interrupted
    @test length(run.history) == run.kept_epoch == 2
    run = quick(v; epochs=5, on_batch=p -> p.epoch == 3 ? throw(InterruptException()) : false)
    @test run.ended === :interrupted
    @test length(run.history) == 2
    run = quick(v; epochs=5, on_batch=p -> p.epoch == 3 && wait(Threads.@spawn throw(InterruptException())))
    @test run.ended === :interrupted
    @test length(run.history) == 2
    @test all(array -> all(isfinite, array), Flux.trainables(run.model))
    @test_throws "mine" quick(v; on_batch=_ -> error("mine"))
end

# Where it strikes is chance; a row that was kept and not reported showed in one of four.
Sys.iswindows() || @testset "a real Ctrl-C, at any time" begin
    v = variant("dense_l2")
    data = data_of(v)
    Base.exit_on_sigint(false)
    for delay in 0.02:0.02:0.4
        rows = Int[]
        function tell(row)
            push!(rows, row.epoch)
            row.epoch == 1 && run(`sh -c "sleep $delay; kill -INT $(getpid())"`; wait=false)
        end
        result = train(v, data; epochs=100_000, batch_size=10, on_epoch=tell)
        @test result.ended === :interrupted
        @test rows == [row.epoch for row in result.history]
    end
    Base.exit_on_sigint(true)
end

@testset "a loss that is not finite" begin
    v = variant("dense_l2")
    err = try quick(v; epochs=3, learning_rate=1e30) catch err; err end
    @test err isa DivergedError
    @test err.epoch == 1 && err.batch in 2:5
    @test occursin("in epoch 1, batch $(err.batch)", sprint(showerror, err))
    @test all(array -> all(isfinite, array), Flux.trainables(err.run.model))
    @test err.kept_epoch == 0
    # The initial weights, which that seed gives.
    @test arrays(err.run.model) == arrays(build_model(v, input_of(v), 2; rng=PhotoFlux.derived_rng(42, "weights")))
end

@testset "a fit starts from given weights" begin
    source = quick(variant("l2"))
    data = data_of(variant("l2"))
    mktempdir() do root
        folder = save_run(joinpath(root, "run"), source)
        file = joinpath(folder, "weights.safetensors")
        # Of another variant: the shapes agree. At this rate no weight moves, so the first row is that of the source.
        for initial in (source, folder, file)
            run = train("elastic_net", data; epochs=1, learning_rate=1e-12, initial)
            @test all(isapprox.(arrays(run.model), arrays(source.model); atol=1e-9))
            @test run.history[1].validation_loss ≈ evaluate(source, data; part=:validation).loss rtol = 1e-5
            @test run.initial.path == (initial isa Run ? nothing : realpath(folder))
            @test run.initial.fingerprint == PhotoFlux.fingerprint(source.model, layers(source))
            back = load_run(save_run(joinpath(root, "more"), run))
            @test back.initial == run.initial
            @test occursin("from", sprint(show, MIME("text/plain"), back))
        end
        @test arrays(source.model) == arrays(load_run(folder).model)
        # Interrupted at once, the run has the weights that it started from after one step of Adam.
        run = train("l2", data; initial=folder, on_batch=Returns(true))
        @test run.kept_epoch == 0
        @test 0 < maximum(maximum(abs, a - b) for (a, b) in zip(arrays(run.model), arrays(source.model))) < 0.0011
        @test quick(variant("l2")).initial === nothing
        @test_throws r"≠ conv1\.kernel \(3, 3, 3, 16\)\s+–" train("dense_l2", data; initial=folder)
        @test_throws "There is no weights file" train("l2", data; initial=joinpath(root, "none"))
    end
end

@testset "balance" begin
    v = variant("dense_l2")
    data = data_of(v; counts=[36, 12])
    seen = Int[]
    train(v, data; epochs=1, balance="augment", on_batch=p -> (push!(seen, p.images); false))
    @test sum(seen) == 2 * count(==(0), data.labels[indices(data, :train)])
    plain, weighted = train(v, data; epochs=1), train(v, data; epochs=1, balance="weights")
    @test arrays(plain.model) != arrays(weighted.model)
end

@testset "values that cannot be used" begin
    v = variant("dense_l2")
    @test_throws "`epochs` must be a whole number, 1 or more; received: 0" quick(v; epochs=0)
    @test_throws "`batch_size` must be a whole number, 1 or more; received: 0" train(v, data_of(v); batch_size=0)
    @test_throws "`learning_rate` must be" quick(v; learning_rate=-1)
    @test_throws "`learning_rate` must be" quick(v; learning_rate=NaN)
    @test_throws "`learning_rate` must be a finite number above 0; received: 1.0e-60" quick(v; learning_rate=1e-60)
    @test_throws "Did you mean weights?" quick(v; balance="wieghts")
    @test_throws "`variant` must be one of" train("l3", data_of(v))
    @test_throws "there is no folder" train("l2", "no/such/folder")
    d = data_of(v)
    @test_throws "validation part of tiny has no images" quick(v, PreparedDataset(d.images, d.labels, zeros(UInt8, length(d)), d.classes, "tiny", ""))
end

@testset "the document's squared error" begin
    v = variant("mlp"; loss="squared_error", l2=0)
    run = train(v, data_of(v; classes=3); epochs=10, batch_size=8, learning_rate=0.01)
    @test run.history[end].train_loss < run.history[1].train_loss < 0.5
end

@testset "features are not taken for images" begin
    features = data_of(variant("transfer"))
    @test_throws "The variant \"l2\" is fitted to images, and tiny holds a backbone's features" train("l2", features)
    @test_throws "`balance` cannot be \"augment\" on features" train("transfer", features; balance="augment")
end

# Written out in Float64, rounded once; the last feature is constant.
@testset "features are standardised by the training part" begin
    v = variant("transfer")
    data = data_of(v)
    run = quick(v, data)
    rows = Float64.(reshape(data.images, 12, :)[:, indices(data, :train)])
    means = sum(rows; dims=2) ./ size(rows, 2)
    deviations = sqrt.(sum(abs2, rows .- means; dims=2) ./ size(rows, 2))
    (; mean, deviation) = run.model[:standardise]
    @test mean ≈ vec(means) rtol = eps(Float32)
    @test deviation[1:11] ≈ deviations[1:11] rtol = eps(Float32)
    @test deviations[12] == 0 && deviation[12] == 1
    # Neither a step nor another part changes them, and a fit that starts from weights has theirs.
    mktempdir() do root
        more = train(v, data_of(v; seed=7); epochs=1, initial=save_run(joinpath(root, "run"), run))
        @test more.model[:standardise].mean == mean && more.model[:standardise].deviation == deviation
        @test quick(v, data_of(v; seed=7)).model[:standardise].mean != mean
    end
end

# The gradient of the loss pulls at a weight with less than λ₁ in most places, so it stays at exactly 0.
@testset "proximal steps give exact zeros, $(v.name)" for v in (variant("transfer_l1"; l1=0.05), variant("transfer_elastic_net"; l1=0.05))
    with(proximal) = Variant(; (f => getfield(v, f) for f in fieldnames(Variant))..., proximal)
    fitted(w) = train(w, data_of(v; features=40); epochs=60, batch_size=8, learning_rate=0.01)
    zeros_of(run) = count(iszero, run.model[:output].weight)
    run = fitted(v)
    @test 20 <= zeros_of(run) < 40
    # Without proximal steps only the feature that never changes has no gradient, and stays where the head starts.
    @test findall(iszero, vec(fitted(with(false)).model[:output].weight)) == [40]
    @test arrays(fitted(v).model) == arrays(run.model)
    @test run.history[end].train_penalty > 0
end

@testset "proximal steps in a CNN" begin
    v = variant("l1"; l1=0.001)
    fitted(proximal) = train(Variant(; (f => getfield(v, f) for f in fieldnames(Variant))..., proximal), data_of(v); epochs=10, batch_size=8)
    share_of_zeros(run) = [count(iszero, run.model[name].weight) / length(run.model[name].weight) for name in (:conv2, :conv3, :dense1)]
    run = fitted(true)
    # What the squares on noise do not need goes; the rest still tells them apart.
    @test all(share -> 0.5 < share < 1, share_of_zeros(run))
    @test run.history[end].validation_loss < 0.01
    @test iszero(share_of_zeros(fitted(false)))
end
