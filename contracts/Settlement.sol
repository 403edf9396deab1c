// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {Clones} from "@openzeppelin/contracts/proxy/Clones.sol";
import {BitMaps} from "@openzeppelin/contracts/utils/structs/BitMaps.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {DepositForwarder} from "./DepositForwarder.sol";

/// @title Where AIT enters and leaves the platform's ledger, and where receipts are anchored.
/// @notice The operator acts alone up to `approvalThreshold` per call; above it the approver signs
/// too, and nobody exceeds `dailyCap`. Every effect carries an id that is accepted once, so a lost
/// reply can never pay twice.
contract Settlement is Ownable2Step, Pausable, ReentrancyGuardTransient, EIP712 {
    using SafeERC20 for IERC20;
    using SafeCast for uint256;
    using BitMaps for BitMaps.BitMap;

    /// 128 bits hold 3.4 * 10**20 AIT; every cast to them is checked.
    struct Payout {
        bytes32 root;
        uint128 remaining;
        uint128 count;
    }

    struct Claim {
        uint256 index;
        address account;
        uint256 amount;
    }

    bytes32 private constant WITHDRAWAL_TYPEHASH =
        keccak256("Withdrawal(bytes32 intentId,address to,uint256 amount)");
    bytes32 private constant PAYOUT_TYPEHASH =
        keccak256("Payout(bytes32 batchId,bytes32 root,uint256 total,uint256 count)");

    IERC20 public immutable TOKEN;
    address public immutable FORWARDER;

    address public operator;
    address public approver;
    address public guardian;
    uint128 public dailyCap;
    uint128 public approvalThreshold;

    uint256 public depositCount;
    /// @notice Sum of all opened and not yet claimed payouts: not free for withdrawals.
    uint256 public promised;
    mapping(bytes32 intentId => bool) public used;
    mapping(bytes32 batchId => bytes32 root) public anchored;
    mapping(bytes32 batchId => Payout) public payouts;

    mapping(bytes32 batchId => BitMaps.BitMap) private _claimed;
    uint128 private _level;
    uint64 private _levelTime;

    event Deposited(uint256 indexed depositId, bytes32 indexed user, address indexed from, uint256 amount);
    event Swept(bytes32 indexed user, address indexed forwarder, uint256 amount);
    event Anchored(bytes32 indexed batchId, bytes32 root, uint256 count, bytes32 heads);
    event PayoutOpened(bytes32 indexed batchId, bytes32 root, uint256 total, uint256 count);
    event Claimed(bytes32 indexed batchId, uint256 indexed index, address indexed account, uint256 amount);
    event Withdrawn(bytes32 indexed intentId, address indexed to, uint256 amount);
    event RolesChanged(address operator, address approver, address guardian);
    event LimitsChanged(uint256 dailyCap, uint256 approvalThreshold);
    event Rescued(address indexed token, address indexed to, uint256 amount);

    error NotOperator(address caller);
    error NotGuardian(address caller);
    error ZeroValue();
    error IdUsed(bytes32 id);
    error DailyCapExceeded(uint256 available, uint256 asked);
    error ReserveTooLow(uint256 free, uint256 asked);
    error NotApproved();
    error InvalidClaim(bytes32 batchId, uint256 index);
    error AlreadyClaimed(bytes32 batchId, uint256 index);
    error TokenNotRescuable();
    error OwnerNeeded();

    modifier onlyOperator() {
        if (msg.sender != operator) revert NotOperator(msg.sender);
        _;
    }

    modifier onlyGuardian() {
        if (msg.sender != guardian && msg.sender != owner()) revert NotGuardian(msg.sender);
        _;
    }

    constructor(
        IERC20 token,
        address owner_,
        address operator_,
        address approver_,
        address guardian_,
        uint256 dailyCap_,
        uint256 approvalThreshold_
    ) Ownable(owner_) EIP712("AITBC Settlement", "1") {
        if (address(token) == address(0)) revert ZeroValue();
        TOKEN = token;
        FORWARDER = address(new DepositForwarder(address(this)));
        _setRoles(operator_, approver_, guardian_);
        _setLevel(dailyCap_);
        _setLimits(dailyCap_, approvalThreshold_);
    }

    // -- in -------------------------------------------------------------------------------------
    function deposit(uint256 amount) external returns (uint256) {
        return depositFor(bytes32(uint256(uint160(msg.sender))), amount);
    }

    /// @param user The platform's id of the credited user, left-aligned in 32 bytes.
    function depositFor(bytes32 user, uint256 amount)
        public
        nonReentrant
        whenNotPaused
        returns (uint256 depositId)
    {
        if (amount == 0) revert ZeroValue();
        depositId = ++depositCount;
        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
        emit Deposited(depositId, user, msg.sender, amount);
    }

    /// @notice The address whose tokens only ever move to this contract. It needs no code to receive.
    function depositAddress(bytes32 user) public view returns (address) {
        return Clones.predictDeterministicAddress(FORWARDER, user, address(this));
    }

    /// @notice Moves what lies at a user's deposit address here. The ledger credits such a deposit
    /// when it reaches that address, so this is housekeeping and emits no `Deposited`.
    function sweep(bytes32 user) external nonReentrant returns (uint256 amount) {
        address forwarder = depositAddress(user);
        if (forwarder.code.length == 0) Clones.cloneDeterministic(FORWARDER, user);
        amount = DepositForwarder(forwarder).forward(TOKEN);
        emit Swept(user, forwarder, amount);
    }

    // -- receipts -------------------------------------------------------------------------------
    /// @param heads Commitment to the heads of the platform's journals at that time.
    function anchor(bytes32 batchId, bytes32 root, uint256 count, bytes32 heads) external onlyOperator {
        if (root == 0 || count == 0) revert ZeroValue();
        if (anchored[batchId] != 0) revert IdUsed(batchId);
        anchored[batchId] = root;
        emit Anchored(batchId, root, count, heads);
    }

    // -- out ------------------------------------------------------------------------------------
    /// @param approval The approver's EIP-712 signature, empty up to the threshold.
    function withdraw(bytes32 intentId, address to, uint256 amount, bytes calldata approval)
        external
        onlyOperator
        nonReentrant
        whenNotPaused
    {
        if (to == address(0)) revert ZeroValue();
        if (used[intentId]) revert IdUsed(intentId);
        used[intentId] = true;
        _allow(amount, keccak256(abi.encode(WITHDRAWAL_TYPEHASH, intentId, to, amount)), approval);
        TOKEN.safeTransfer(to, amount);
        emit Withdrawn(intentId, to, amount);
    }

    /// @notice Promises `total` to the leaves under `root`; each account fetches its own by `claim`.
    function openPayout(bytes32 batchId, bytes32 root, uint256 total, uint256 count, bytes calldata approval)
        external
        onlyOperator
        nonReentrant
        whenNotPaused
    {
        if (root == 0 || count == 0) revert ZeroValue();
        if (payouts[batchId].root != 0) revert IdUsed(batchId);
        _allow(total, keccak256(abi.encode(PAYOUT_TYPEHASH, batchId, root, total, count)), approval);
        payouts[batchId] = Payout(root, total.toUint128(), count.toUint128());
        promised += total;
        emit PayoutOpened(batchId, root, total, count);
    }

    /// @notice Pays the leaf (batchId, index, account, amount) to its account; anyone may call.
    function claim(
        bytes32 batchId,
        uint256 index,
        address account,
        uint256 amount,
        bytes32[] calldata proof
    ) external nonReentrant whenNotPaused {
        Payout storage payout = payouts[batchId];
        if (_claimed[batchId].get(index)) revert AlreadyClaimed(batchId, index);
        if (
            index >= payout.count || amount > payout.remaining
                || !MerkleProof.verifyCalldata(proof, payout.root, _leaf(batchId, index, account, amount))
        ) revert InvalidClaim(batchId, index);
        _claimed[batchId].set(index);
        payout.remaining -= uint128(amount);
        promised -= amount;
        TOKEN.safeTransfer(account, amount);
        emit Claimed(batchId, index, account, amount);
    }

    /// @notice Pays many leaves of a batch, each to its own account; anyone may call. A leaf that was
    /// claimed before is passed over, so that nobody stops the others by claiming one of them first.
    /// @param proof What the leaves lack to give the root, with `flags` as MerkleProof takes them.
    /// @return paid How many leaves were paid by this call.
    function claimMany(
        bytes32 batchId,
        Claim[] calldata claims,
        bytes32[] calldata proof,
        bool[] calldata flags
    ) external nonReentrant whenNotPaused returns (uint256 paid) {
        if (claims.length == 0) revert ZeroValue();
        bool[] memory due = _redeem(batchId, claims, proof, flags);
        for (uint256 i = 0; i < claims.length; ++i) {
            if (!due[i]) continue;
            Claim calldata item = claims[i];
            ++paid;
            TOKEN.safeTransfer(item.account, item.amount);
            emit Claimed(batchId, item.index, item.account, item.amount);
        }
    }

    /// @dev All effects of `claimMany` before its first transfer: which leaves are due, now marked.
    function _redeem(
        bytes32 batchId,
        Claim[] calldata claims,
        bytes32[] calldata proof,
        bool[] calldata flags
    ) private returns (bool[] memory due) {
        Payout storage payout = payouts[batchId];
        BitMaps.BitMap storage done = _claimed[batchId];
        due = new bool[](claims.length);
        bytes32[] memory leaves = new bytes32[](claims.length);
        uint256 count = payout.count;
        uint256 total = 0;
        for (uint256 i = 0; i < claims.length; ++i) {
            Claim calldata item = claims[i];
            if (item.index >= count) revert InvalidClaim(batchId, item.index);
            leaves[i] = _leaf(batchId, item.index, item.account, item.amount);
            if (done.get(item.index)) continue; // also a leaf named twice in one call
            done.set(item.index);
            due[i] = true;
            total += item.amount;
        }
        if (
            total > payout.remaining
                || !MerkleProof.multiProofVerifyCalldata(proof, flags, payout.root, leaves)
        ) revert InvalidClaim(batchId, claims[0].index);
        payout.remaining -= uint128(total);
        promised -= total;
    }

    /// @dev Hashed twice: nothing of 64 bytes, which an inner node is, hashes to a leaf.
    function _leaf(bytes32 batchId, uint256 index, address account, uint256 amount)
        private
        pure
        returns (bytes32)
    {
        return keccak256(bytes.concat(keccak256(abi.encode(batchId, index, account, amount))));
    }

    function claimed(bytes32 batchId, uint256 index) external view returns (bool) {
        return _claimed[batchId].get(index);
    }

    /// @notice What may still leave now: the allowance refills evenly, by one `dailyCap` per day.
    function availableOutflow() public view returns (uint256) {
        uint256 cap = dailyCap;
        uint256 level = _level + (block.timestamp - _levelTime) * cap / 1 days;
        return level < cap ? level : cap;
    }

    function _allow(uint256 amount, bytes32 structHash, bytes calldata approval) private {
        if (amount == 0) revert ZeroValue();
        uint256 free = TOKEN.balanceOf(address(this)) - promised;
        if (amount > free) revert ReserveTooLow(free, amount);
        uint256 available = availableOutflow();
        if (amount > available) revert DailyCapExceeded(available, amount);
        if (
            amount > approvalThreshold
                && !SignatureChecker.isValidSignatureNowCalldata(
                    approver, _hashTypedDataV4(structHash), approval
                )
        ) revert NotApproved();
        _setLevel(available - amount);
    }

    function _setLevel(uint256 level) private {
        _level = level.toUint128();
        _levelTime = uint64(block.timestamp);
    }

    // -- rule -----------------------------------------------------------------------------------
    function pause() external onlyGuardian {
        _pause();
    }

    function unpause() external onlyOwner {
        _unpause();
    }

    function setRoles(address operator_, address approver_, address guardian_) external onlyOwner {
        _setRoles(operator_, approver_, guardian_);
    }

    function setLimits(uint256 dailyCap_, uint256 approvalThreshold_) external onlyOwner {
        uint256 available = availableOutflow();
        _setLevel(available < dailyCap_ ? available : dailyCap_);
        _setLimits(dailyCap_, approvalThreshold_);
    }

    /// @notice Without an owner nobody could end a pause: ownership is handed over, never given up.
    function renounceOwnership() public view override onlyOwner {
        revert OwnerNeeded();
    }

    /// @notice Returns tokens other than AIT that someone sent here by mistake.
    function rescue(IERC20 token, address to, uint256 amount) external onlyOwner nonReentrant {
        if (address(token) == address(TOKEN)) revert TokenNotRescuable();
        token.safeTransfer(to, amount);
        emit Rescued(address(token), to, amount);
    }

    function _setLimits(uint256 dailyCap_, uint256 approvalThreshold_) private {
        dailyCap = dailyCap_.toUint128();
        approvalThreshold = approvalThreshold_.toUint128();
        emit LimitsChanged(dailyCap_, approvalThreshold_);
    }

    function _setRoles(address operator_, address approver_, address guardian_) private {
        if (operator_ == address(0) || approver_ == address(0) || guardian_ == address(0)) revert ZeroValue();
        if (operator_ == approver_) revert NotApproved();
        operator = operator_;
        approver = approver_;
        guardian = guardian_;
        emit RolesChanged(operator_, approver_, guardian_);
    }
}
