using PhotoFlux: Convolution, suits_winograd
using PhotoFlux.Flux: Zygote, relu

const SIZES = [(1, 1), (1, 5), (5, 1), (7, 4), (15, 3), (16, 5), (17, 6), (33, 20), (49, 2), (90, 11)]

random(seed, dims...) = randn(Xoshiro(seed), Float32, dims...)

function layer(kernel, channels, σ, stride)
    made = Convolution((kernel, kernel), channels, σ; stride, init=(dims...) -> random(1, dims...))
    made.bias .= random(2, last(channels))
    return made
end

# NNlib in Float64 is the truth. A sum of n products rounds at most n times, each time by eps of the partial sum.
function agrees(name, ours, truth, terms)
    scale = max(maximum(abs, truth), 1.0)
    @test size(ours) == size(truth)
    @test eltype(ours) == Float32
    @test maximum(abs, ours .- truth) <= terms * eps(Float32) * scale
end

@testset "is NNlib's, $(kernel)×$kernel, $channels, stride $stride, $σ, $images images" for
        kernel in (1, 3, 5), channels in (1 => 1, 3 => 16, 2 => 5, 8 => 9, 16 => 32, 48 => 16), stride in (1, 2), σ in (identity, relu), images in (1, 3)
    kernel == 3 && stride == 1 || channels == (3 => 16) || continue   # the others are NNlib's own
    made = layer(kernel, channels, σ, stride)
    wide = Convolution(identity, Float64.(made.weight), Float64.(made.bias), made.stride, made.pad)
    for size_ in SIZES
        x = random(3, size_..., first(channels), images)
        y, back = Zygote.pullback((l, x) -> l(x), made, x)
        linear, wide_back = Zygote.pullback((l, x) -> l(x), wide, Float64.(x))
        dy = random(4, size(y)...)
        # The mask is ours: near zero, rounding decides it.
        mask = σ === relu ? y .> 0 : trues(size(y))
        agrees("y", y, σ.(linear), kernel^2 * first(channels) + 1)
        gradient, dx = back(dy)
        wide_gradient, wide_dx = wide_back(Float64.(dy .* mask))
        agrees("dx", dx, wide_dx, kernel^2 * last(channels))
        agrees("weight", gradient.weight, wide_gradient.weight, prod(size(y)[1:2]) * images)
        agrees("bias", gradient.bias, wide_gradient.bias, prod(size(y)[1:2]) * images)
    end
end

# The layer without ReLU is linear in the input and in the kernel, so a quotient of differences has no error but rounding:
# a sum of 270 terms, over a step of 0.2.
@testset "finite differences, $inputs channels" for inputs in (2, 16)
    made, x, dy = layer(3, inputs => 16, identity, 1), random(5, 18, 5, inputs, 2), random(6, 18, 5, 16, 2)
    @assert suits_winograd(18, inputs, 16) == (inputs == 16)
    along(direction) = Convolution(identity, made.weight .+ direction, made.bias, made.stride, made.pad)
    f(l, x) = sum(Float64, l(x) .* dy)
    gradient, dx = Zygote.gradient((l, x) -> sum(l(x) .* dy), made, x)
    h, u, w = 0.1f0, random(7, size(x)...), random(8, size(made.weight)...)
    @test (f(made, x .+ h .* u) - f(made, x .- h .* u)) / 2h ≈ sum(u .* dx) rtol = 270 * eps(Float32) / h
    @test (f(along(h .* w), x) - f(along(-h .* w), x)) / 2h ≈ sum(w .* gradient.weight) rtol = 270 * eps(Float32) / h
end

@testset "other arrays go to NNlib" begin
    made = layer(3, 2 => 3, relu, 1)
    x = random(9, 6, 5, 2, 1)
    @test made(view(x, :, :, :, :)) ≈ made(x) rtol = 1e-5
    wide = Convolution(relu, Float64.(made.weight), Float64.(made.bias), made.stride, made.pad)
    @test eltype(wide(Float64.(x))) == Float64
end

@testset "a NaN is not hidden by the ReLU, $channels channels" for channels in (1, 16)
    made = layer(3, channels => channels, relu, 1)
    x = fill(NaN32, 16, 4, channels, 1)
    @test all(isnan, made(x))
end
