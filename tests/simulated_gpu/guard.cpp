/* What a CPU build of PyTorch lacks for fake CUDA tensors:

   1. The table of device guards has no CUDA row: autograd, indexing and copies raise "PyTorch is not linked with support
      for cuda devices". FakeTensorMode fills the row in CUDA builds only. The row below has one device and one stream.
   2. Autograd's input buffers ask for the accelerator's stream, and raise "Cannot access accelerator device when none is
      available". hooks(1) lets CUDA be the accelerator until hooks(0). */
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace c10::impl {

struct SimulatedGuard final : NoOpDeviceGuardImpl<DeviceType::CUDA> {
  Device exchangeDevice(Device) const override { return {DeviceType::CUDA, 0}; }
  Device getDevice() const override { return {DeviceType::CUDA, 0}; }
  Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, getDevice()); }
  Stream exchangeStream(Stream) const noexcept override { return Stream(Stream::DEFAULT, getDevice()); }
  void record(void **, const Stream &, const DeviceIndex, const EventFlag) const override {}
  void block(void *, const Stream &) const override {}
  bool queryEvent(void *) const override { return true; }
};

C10_REGISTER_GUARD_IMPL(CUDA, SimulatedGuard)

}  // namespace c10::impl

namespace {

struct SimulatedHooks final : at::CUDAHooksInterface {
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  void init() const override {}
  c10::DeviceIndex deviceCount() const override { return 1; }
  int getNumGPUs() const override { return 1; }
  c10::DeviceIndex current_device() const override { return 0; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
};

}  // namespace

/* The hooks' object is made once and has no setter; its virtual table is exchanged instead. */
extern "C" void hooks(int simulated) {
  static SimulatedHooks mine;
  void **object = reinterpret_cast<void **>(const_cast<at::CUDAHooksInterface *>(&at::detail::getCUDAHooks()));
  static void *const before = *object;
  *object = simulated ? *reinterpret_cast<void **>(&mine) : before;
}
