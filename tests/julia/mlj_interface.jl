# PhotoFluxClassifier asked by MLJBase; mlj.jl includes this where it is installed.
using MLJBase: MLJBase, CV, categorical, evaluate!, fit!, fitted_params, levels, machine, mode, pdf, report, training_losses
using MLJBase.ScientificTypes.ColorTypes: FixedPointNumbers, Gray, HSV, RGB
using PhotoFlux: Chain, Dense, dataset_of

const N0f8 = FixedPointNumbers.N0f8

mine(; kwargs...) = PhotoFluxClassifier(; variant="dense_l2", epochs=2, kwargs...)
fitted(model, X, y; verbosity=0) = fit!(machine(model, X, y); verbosity)

data = tiny_data(; size=(9, 8, 3))
images = [data.images[:, :, :, i] for i in 1:length(data)]
named = categorical([["photo", "drawing"][label + 1] for label in data.labels])

@testset "a machine gives the numbers of train" begin
    mach = fitted(mine(seed=7), images, named)
    # The levels are in the order of the alphabet: a drawing is the first class.
    by_hand = dataset_of((data.images, 1 .- data.labels), (zeros(UInt8, 9, 8, 3, 0), Int32[]), ["drawing", "photo"]; name="by hand", seed=7)
    run = train("dense_l2", by_hand; epochs=2, seed=7)
    @test arrays(fitted_params(mach).run.model) == arrays(run.model)
    predictions = MLJBase.predict(mach, images[1:5])
    @test pdf(predictions, ["drawing", "photo"]) == permutedims(predict(run, data.images[:, :, :, 1:5]))
    @test training_losses(mach) == [row.train_total for row in run.history] && report(mach).kept_epoch == 2 && report(mach).ended === :epochs
    @test MLJBase.predict_mode(mach, images[1:5]) == mode.(predictions)
end

@testset "it is evaluated by MLJ, over folds" begin
    accuracy(predicted, truth) = sum(mode.(predicted) .== truth) / length(truth)
    result = evaluate!(machine(mine(epochs=20, learning_rate=0.01), images, named); resampling=CV(nfolds=2, shuffle=true, rng=1), measure=accuracy,
        operation=MLJBase.predict, verbosity=0, check_measure=false)
    # A bright square on the left or elsewhere: twice a fit to half of the images, where guessing has 0.5.
    @test only(result.measurement) > 0.8
end

@testset "colours are the bytes that they stand for, and rows come first" begin
    colour(image) = permutedims([RGB{N0f8}(reinterpret.(N0f8, image[w, h, :])...) for w in axes(image, 1), h in axes(image, 2)])
    bytes = fitted(mine(), images, named)
    colours = fitted(mine(), colour.(images), named)
    @test size(colour(images[1])) == (8, 9)
    @test arrays(fitted_params(colours).run.model) == arrays(fitted_params(bytes).run.model)
    @test MLJBase.predict(colours, colour.(images[1:3])) ≈ MLJBase.predict(bytes, images[1:3])
    grey = [image[:, :, 1] for image in images]
    of_grey = fitted(mine(), [permutedims(Gray{Float32}.(image ./ 255)) for image in grey], named)
    @test arrays(fitted_params(of_grey).run.model) == arrays(fitted_params(fitted(mine(), grey, named)).run.model)
end

@testset "a level without images is no class of the fit" begin
    y = categorical([fill("b", 24); fill("c", 24)]; levels=["a", "b", "c"])
    mach = fitted(mine(), images, y)
    predictions = MLJBase.predict(mach, images[1:2])
    @test fitted_params(mach).run.classes == ["b", "c"]
    @test pdf(predictions, ["b", "c"]) ≈ permutedims(predict(fitted_params(mach).run, data.images[:, :, :, 1:2]))
    @test levels(first(predictions)) == ["a", "b", "c"] && pdf(first(predictions), "a") == 0
    numbers = fitted(mine(), images, categorical(Int.(data.labels)))
    @test MLJBase.predict_mode(numbers, images[1:2]) isa AbstractVector && levels(MLJBase.predict_mode(numbers, images[1:2])) == [0, 1]
end

@testset "its fields reach the fit" begin
    run(model) = fitted_params(fitted(model, images, named)).run
    made = run(mine(l2=0.5, loss="squared_error", batch_size=5, learning_rate=0.02, balance="weights", schedule="cosine", seed=3))
    @test PhotoFlux.coefficients(made.variant.penalty["hidden"])[2] == 0.5f0 && made.variant.loss == "squared_error"
    @test (made.settings.batch_size, made.settings.learning_rate, made.settings.balance, made.settings.schedule, made.settings.seed) == (5, 0.02, "weights", "cosine", 3)
    @test length(run(mine(epochs=50, max_time=1e-6)).history) < 50
    # What a TunedModel asks of a field that is not set: which numbers it may try.
    @test MLJBase.iterator(range(mine(), :l2; lower=1e-4, upper=1e-2, scale=:log10), 3) ≈ [1e-4, 1e-3, 1e-2]
    @test MLJBase.iterator(range(mine(), :batch_size; lower=8, upper=10), 3) == [8, 9, 10]
    network = Chain(Flux.flatten, Dense(9 * 8 * 3 => 1))
    @test run(mine(variant=network, epochs=1)).variant.architecture == "chain"
    @test run(mine(variant=variant("dense_dropout"))).variant.name == "dense_dropout"
    @test_logs (:info, r"Epoch 1: loss") (:info, r"Epoch 2") match_mode = :any fitted(mine(), images, named; verbosity=2)
end

@testset "what cannot be fitted is said" begin
    message(model, X, y) = try (MLJBase.fit(model, 0, X, y); "") catch err; sprint(showerror, err) end
    @test occursin("`variant` must be one of", message(mine(variant="l9"), images, named))
    @test occursin("`l2` is of a variant", message(mine(variant=Chain(Flux.flatten, Dense(216 => 1)), l2=0.1), images, named))
    @test occursin("of the type Array{Float32", message(mine(), [rand(Float32, 9, 8, 3) for _ in images], named))
    @test occursin("expected Gray or RGB", message(mine(), [fill(HSV(0.0, 0.5, 0.5), 8, 9) for _ in images], named))
    @test occursin("has a value of 1.5", message(mine(), [fill(Gray(1.5), 8, 9) for _ in images], named))
    @test occursin("images of 1 class", message(mine(), images, categorical(fill("a", length(images)))))
    @test occursin("48 images, but 47 classes", message(mine(), images, named[1:47]))
    @test occursin("Observation 2 has an image of 2×2×3", message(mine(), [images[1:1]; [images[1][1:2, 1:2, :]]; images[3:end]], named))
    @test_throws "Observation 1 has an image of 2×2×3; the others have 9×8×3" MLJBase.predict(fitted(mine(), images, named), [zeros(UInt8, 2, 2, 3)])
end
