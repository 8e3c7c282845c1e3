using PhotoFlux: Item, class_weights, epoch_items, gather, targets

const data = tiny_data(; classes=3, counts=[40, 13, 6])
const training = indices(data, :train)
class_of(item) = data.labels[item.index]

@testset "every training image once" begin
    items = epoch_items(data, 1, 1, "none")
    @test sort([item.index for item in items]) == training
    @test all(item -> item.copy == 0, items)
    @test items == epoch_items(data, 1, 1, "none")
    @test items != epoch_items(data, 1, 2, "none")
    @test items != epoch_items(data, 2, 1, "none")
end

@testset "augmentation balances the classes, with training images only" begin
    items = epoch_items(data, 1, 1, "augment")
    counts = [count(item -> class_of(item) == k, items) for k in 0:2]
    largest = count(==(0), data.labels[training])
    @test counts == fill(largest, 3)
    @test issubset([item.index for item in items], training)
    @test allunique(items)
    @test all(item -> item.copy == 0 || class_of(item) != 0, items)
    uses = [count(item -> item.index == i, items) for i in training if data.labels[i] == 2]
    @test maximum(uses) - minimum(uses) <= 1
end

@testset "weights" begin
    counts = [count(==(k), data.labels[training]) for k in 0:2]
    @test class_weights(data, "weights") ≈ length(training) ./ (3 .* counts)
    @test class_weights(data, "none") == class_weights(data, "augment") == [1, 1, 1]
    # The weights average to 1 over the training images, so that the loss keeps its scale.
    @test sum(class_weights(data, "weights")[data.labels[training] .+ 1]) / length(training) ≈ 1
end

@testset "gather" begin
    x = gather(data, [Item(3, 0), Item(5, 1), Item(5, 2)]; seed=1, epoch=1)
    @test x isa Array{Float32,4}
    @test x[:, :, :, 1] == data.images[:, :, :, 3]
    @test x[:, :, :, 2] != x[:, :, :, 3] != data.images[:, :, :, 5]
    # Drawn by seed, epoch, image and copy: not by the place in the batch.
    @test gather(data, [Item(5, 2)]; seed=1, epoch=1)[:, :, :, 1] == x[:, :, :, 3]
    @test gather(data, [Item(5, 2)]; seed=1, epoch=2)[:, :, :, 1] != x[:, :, :, 3]
end

@testset "each batch comes in turn, gathered while the one before is used" begin
    items = [Item(i, mod(i, 3)) for i in 1:8]
    buffers, seen = PhotoFlux.Buffers(), Any[]
    together(work, size) = PhotoFlux.each_batch(work, data, items, size; seed=1, epoch=2, buffers)
    result = together(3) do chosen, x, waited
        sleep(0.01)    # so long that the next batch would spoil this one if they shared an array
        push!(seen, (collect(chosen), copy(x)))
        return waited >= 0 ? nothing : :negative
    end
    @test result === nothing
    @test first.(seen) == [items[1:3], items[4:6], items[7:8]]
    @test all(x == gather(data, chosen; seed=1, epoch=2) for (chosen, x) in seen)
    # What is not `nothing` ends it; so does an error, which comes through.
    @test together((chosen, x, waited) -> :enough, 3) === :enough
    @test_throws ErrorException("no") together((chosen, x, waited) -> error("no"), 3)
end

@test targets(Int32[0, 1, 1], 2) == Float32[0 1 1]
@test targets(Int32[0, 2], 3) == Float32[1 0; 0 0; 0 1]
