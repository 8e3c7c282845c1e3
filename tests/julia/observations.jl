using PhotoFlux: Flux, image_shape
using PhotoFlux.Flux.MLUtils: DataLoader, getobs, numobs, obsview

pixels_of(i) = fill(UInt8(i), 4, 3, 3)
of(numbers) = [(pixels_of(i), ("even", "odd")[mod(i, 2) + 1]) for i in numbers]

struct Lazy end
PhotoFlux.Flux.MLUtils.numobs(::Lazy) = 6
PhotoFlux.Flux.MLUtils.getobs(::Lazy, i::Integer) = (image=fill(UInt8(i), 4, 3), label=mod(i, 2))

@testset "a prepared dataset gives observations" begin
    data = tiny_data()
    @test numobs(data) == length(data)
    @test getobs(data, 3) == (image=data.images[:, :, :, 3], label=data.labels[3])
    @test getobs(data, [3, 1]) == (image=data.images[:, :, :, [3, 1]], label=data.labels[[3, 1]])
    training = indices(data, :train)
    batches = collect(DataLoader(obsview(data, training); batchsize=10))
    @test reduce(vcat, [batch.label for batch in batches]) == data.labels[training]
    @test cat((batch.image for batch in batches)...; dims=4) == data.images[:, :, :, training]
end

@testset "observations make a prepared dataset" begin
    data = open_dataset(of(1:20), of(21:24), ["even", "odd"]; name="mine")
    @test data.images == cat((pixels_of(i) for i in 1:24)...; dims=4) && data.labels == mod.(1:24, 2) && data.name == "mine"
    # One of the ten of each class, and the test part as it was given.
    @test length.(indices.(Ref(data), (:train, :validation, :test))) == (18, 2, 4)
    @test sort(data.labels[indices(data, :validation)]) == [0, 1] && indices(data, :test) == 21:24
    @test image_shape(open_dataset(Lazy(), Lazy(), ["a", "b"])) == (4, 3, 1)
    @test train("dense_l2", data; epochs=1).kept_epoch == 1
end

@testset "observations that make none are refused" begin
    message(train, test=of(1:4), classes=["even", "odd"]) = try (open_dataset(train, test, classes); "") catch err; sprint(showerror, err) end
    @test occursin("no observations", message([]))
    @test occursin("Observation 1 has an image of the type Array{Float32", message([(rand(Float32, 4, 3, 3), 0)]))
    @test occursin("Observation 2 has an image of 2×2×1; the others have 4×3×3", message([of(1:1); (zeros(UInt8, 2, 2), 0)]))
    @test occursin("Observation 1 has an image of 4×3×3; the others have 2×2×1", message([(zeros(UInt8, 2, 2), 0)]))
    @test occursin("has the class 2; expected 0 to 1", message([(pixels_of(1), 2)]))
    @test occursin("has the class \"none\"; expected one of even, odd", message([(pixels_of(1), "none")]))
    @test occursin("2 or more classes", message([(pixels_of(1), 0)], [(pixels_of(1), 0)], ["one"]))
end
