// Work on a device that may be lost meanwhile.
import { CAUSE_WAIT_MS, type Device } from "./devices";

/** Ends work as soon as its device breaks, and starts none on a broken one, where engines hang. */
export class Guard {
  private broken: Promise<never> = new Promise(() => {});
  private brokenBy: unknown = null;

  watch(device: Device | null): void {
    if (!device) return;
    this.broken = device.broken;
    this.broken.catch((error: unknown) => (this.brokenBy = error));
  }

  /** `work`, or what broke the device if that comes first. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.brokenBy) throw this.brokenBy;
    try {
      return await Promise.race([work(), this.broken]);
    } catch (error) {
      await Promise.race([this.broken, new Promise((resolve) => setTimeout(resolve, CAUSE_WAIT_MS))]);
      throw error;
    }
  }

  /** Resolves when the device has broken. */
  async untilBroken(): Promise<void> {
    await this.broken.catch(() => {});
  }
}
