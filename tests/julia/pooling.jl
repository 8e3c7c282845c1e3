using PhotoFlux: maxpool2
using PhotoFlux.Flux: Zygote

@testset "values, size $size_" for size_ in ((6, 4, 3, 2), (7, 5, 1, 1), (2, 2, 1, 3), (3, 9, 2, 2))
    x = randn(Xoshiro(1), Float32, size_)
    w, h, c, n = size_
    expected = [maximum(x[(2i - 1):(2i), (2j - 1):(2j), k, l]) for i in 1:(w ÷ 2), j in 1:(h ÷ 2), k in 1:c, l in 1:n]
    @test maxpool2(x) == expected == Flux.maxpool(x, (2, 2))
    dy = randn(Xoshiro(2), Float32, Base.size(expected))
    dx = only(Zygote.gradient(x -> sum(maxpool2(x) .* dy), x))
    @test all(CartesianIndices(expected)) do I
        i, j, k, l = Tuple(I)
        window, slopes = x[(2i - 1):(2i), (2j - 1):(2j), k, l], dx[(2i - 1):(2i), (2j - 1):(2j), k, l]
        slopes == [m == argmax(window) ? dy[I] : 0 for m in CartesianIndices(window)]
    end
    isodd(w) && @test iszero(dx[w, :, :, :])
end

# NNlib's own gradient goes to the first element that is about as large; this is why there is a maxpool2.
@testset "two elements that differ by little" begin
    x = reshape(Float32[1, 1.0001, 0, 0], 2, 2, 1, 1)
    @test vec(only(Zygote.gradient(x -> sum(maxpool2(x)), x))) == [0, 1, 0, 0]
    @test vec(only(Zygote.gradient(x -> sum(Flux.maxpool(x, (2, 2))), x))) == [1, 0, 0, 0]
end

@test vec(only(Zygote.gradient(x -> sum(maxpool2(x)), zeros(Float32, 2, 2, 1, 1)))) == [1, 0, 0, 0]
@test isnan(only(maxpool2(reshape(Float32[1, 2, NaN, 3], 2, 2, 1, 1))))
@test maxpool2(view(rand(Float32, 4, 4, 1, 1), :, :, :, :)) isa AbstractArray
