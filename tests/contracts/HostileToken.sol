// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @title A token that calls back while it moves, as its attacker told it: what AIT never does.
/// @notice `lastError` keeps the first four bytes that the call back was refused with.
contract HostileToken is ERC20 {
    address public target;
    bytes public attack;
    bool public answered;
    bytes4 public lastError;

    constructor() ERC20("Hostile", "HST") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function arm(address target_, bytes calldata attack_) external {
        (target, attack, answered, lastError) = (target_, attack_, false, 0);
    }

    function _update(address from, address to, uint256 amount) internal override {
        super._update(from, to, amount);
        if (target == address(0) || from == address(0)) return;
        (bool ok, bytes memory reply) = target.call(attack);
        answered = ok;
        if (!ok && reply.length >= 4) lastError = bytes4(reply);
    }
}
